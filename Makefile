# `make` lists what there is. Each target installs what it lacks first (packaging/install-what-is-missing),
# and does nothing twice.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help night test lint bench quality campaign stress fuzz deb

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

night: ## a synthetic night from raw frames to alerts, with the table of what was found (NIGHT=folder, SEED=n)
	@packaging/night

test: ## every test, against real Apache Kafka, astropy and fastavro
	@packaging/test

lint: ## formatting, lints, documentation, licences and known vulnerabilities
	@packaging/lint

bench: ## how fast: exposures stage by stage beside floors and peers, with size, threads and memory; single steps
	@packaging/bench

quality: ## how good: held-out skies and real frames, beside other programs; writes packaging/quality.md (QUALITY=folder)
	@packaging/quality

fuzz: ## five minutes of noise into each decoder
	@packaging/fuzz

campaign: ## the long fault campaign of delivery, with its table
	@packaging/campaign

stress: ## two million alerts through spool, uplink, mirror, readers, filter and archive (NIGHTJAR_STRESS_ALERTS=n)
	@packaging/stress

deb: ## the Debian package, into the folder of the compiled code
	@packaging/deb
