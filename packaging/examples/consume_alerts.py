#!/usr/bin/env python3
"""Prints the alerts of the nights as they come: consume_alerts.py BROKER [PREFIX].

Needs confluent-kafka and fastavro. Each alert comes once, because what was not committed is left out; progress is kept in
the consumer group, so that a restart goes on where it was."""

import io
import sys

import fastavro
from confluent_kafka import Consumer

if len(sys.argv) < 2:
    sys.exit(__doc__)
prefix = sys.argv[2] if len(sys.argv) > 2 else "nightjar"
consumer = Consumer(
    {
        "bootstrap.servers": sys.argv[1],
        "group.id": "nightjar-example",
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "topic.metadata.refresh.interval.ms": 30000,  # a night's topic appears within this time
    }
)
consumer.subscribe([f"^{prefix}_[0-9]{{8}}_programid[0-9]"])
while True:
    message = consumer.poll(1.0)
    if message is None:
        continue
    if message.error():
        print(message.error(), file=sys.stderr)
        continue
    (alert,) = fastavro.reader(io.BytesIO(message.value()))
    found = alert["candidate"]
    print(
        alert["objectId"],
        alert["candid"],
        f"jd {found['jd']:.5f}  ra {found['ra']:.5f}  dec {found['dec']:+.5f}  mag {found['magpsf']:.2f}",
        "brighter" if found["isdiffpos"] in ("t", "1") else "fainter",
        flush=True,
    )
