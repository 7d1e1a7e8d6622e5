"""The same filters on Avro files: development without Kafka, and how fast they are."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .alert import Alert
from .judge import Judge, Verdict, say
from .packet import PacketError, records_of
from .trouble import Trouble

MOST_IN_MEMORY = 2000  # packets that --check goes through again and again


def paths_of(places: list[Path]) -> list[Path]:
    """Every .avro file below folders, and every file that is named."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(place.rglob("*.avro"))
        elif place.exists():
            found.append(place)
        else:
            raise Trouble(f"{place} is not there; name Avro files or folders that hold some")
    if not found:
        raise Trouble(f"no .avro files in {', '.join(map(str, places))}; name a folder of alerts or of the archive")
    return found


def judge_files(judge: Judge, places: list[Path]) -> int:
    """Prints a line for each alert that passes; files of one packet and of the archive alike. Gives the damaged files."""
    damaged = 0
    for path in paths_of(places):
        try:
            with opened(path) as file:
                for record in records_of(file):
                    alert, verdicts = judge.record(record)
                    judge.count(verdicts)
                    for verdict in verdicts:
                        if verdict.passed:
                            print(line_of(alert, verdict))
        except PacketError as error:
            damaged += 1
            say(f"{path}: {error}; what could be read of it was judged, fetch the file again")
    return damaged


def opened(path: Path) -> IO[bytes]:
    """The file, open for reading."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}; look at its owner and rights") from error


def line_of(alert: Alert, verdict: Verdict) -> str:
    """An alert that passed, for people and for awk."""
    where = f"ra {alert.ra:.5f}  dec {alert.dec:+.5f}"
    what = f"{alert.object_id}  {alert.candid}  {alert.band}  {alert.mag:6.3f}  snr {alert.snr:.1f}  {where}"
    return f"{verdict.filter.name}  {what}  {verdict.label}".rstrip()


def payloads_of(places: list[Path]) -> Iterator[bytes]:
    """The bytes of files of one packet each, as Kafka would give them."""
    for path in paths_of(places):
        with opened(path) as file:
            yield file.read()


def check(judge: Judge, places: list[Path], seconds: float) -> str:
    """How many alerts a second are decoded and judged on one core, cut-outs as they come."""
    payloads = list(itertools.islice(payloads_of(places), MOST_IN_MEMORY))
    for payload in payloads:
        _, verdicts = judge.packet(payload)
        judge.count(verdicts)
    done = 0
    begun = time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        for payload in payloads:
            judge.packet(payload)
        done += len(payloads)
    size = sum(map(len, payloads)) / len(payloads) / 1e3
    return f"{done / spent:.0f} alerts a second of a core decoded and judged ({len(payloads)} different, {size:.1f} kB each)"
