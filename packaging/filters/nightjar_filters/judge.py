"""Filters at work on one packet: what passes, what fails, and how often."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from dataclasses import dataclass, field

from .alert import Alert
from .filters import AlertFilter
from .packet import PacketError, PacketReader, Record


def say(line: str) -> None:
    """A line for people."""
    print(line, file=sys.stderr, flush=True)


@dataclass
class Counts:
    """What one filter has done."""

    passed: int = 0
    refused: int = 0
    failed: int = 0


@dataclass
class Verdict:
    """What one filter says of one alert: `passed` with a label or without, or the reason why it failed."""

    filter: AlertFilter
    passed: bool = False
    label: str = ""
    failure: str = ""


@dataclass
class Judge:
    """Runs filters. A filter that raises costs that alert and nothing else; each kind of failure is told once."""

    filters: list[AlertFilter]
    reader: PacketReader
    counts: dict[str, Counts] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.counts = {one.name: Counts() for one in self.filters}

    def packet(self, payload: bytes | None, headers: dict[str, bytes] | None = None) -> tuple[Alert | None, list[Verdict]]:
        """The verdicts on a message. One that is no packet fails in every filter."""
        try:
            alert = Alert(self.reader.read(payload or b""), headers)
        except PacketError as error:
            self._tell("packets", "PacketError", str(error))
            return None, [Verdict(one, failure=f"PacketError: {error}") for one in self.filters]
        return alert, [self._one(one, alert) for one in self.filters]

    def record(self, record: Record) -> tuple[Alert, list[Verdict]]:
        """The verdicts on a record of a file."""
        alert = Alert(record)
        return alert, [self._one(one, alert) for one in self.filters]

    def count(self, verdicts: list[Verdict]) -> None:
        """Adds verdicts to the counts: once they are committed, where they are sent on."""
        for verdict in verdicts:
            counts = self.counts[verdict.filter.name]
            if verdict.failure:
                counts.failed += 1
            elif verdict.passed:
                counts.passed += 1
            else:
                counts.refused += 1

    def _one(self, one: AlertFilter, alert: Alert) -> Verdict:
        try:
            answer = one.filter(alert)
            passed = bool(answer)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._tell(one.name, type(error).__name__, f"{error} ({place.filename}, line {place.lineno})")
            return Verdict(one, failure=f"{type(error).__name__}: {error}")
        return Verdict(one, passed, answer if isinstance(answer, str) else "")

    def _tell(self, who: str, kind: str, what: str) -> None:
        self.told[f"{who}: {kind}"] += 1
        if self.told[f"{who}: {kind}"] == 1:
            say(f"{who}: {kind}: {what}; such alerts are set aside and counted, this line comes once")

    def summary(self) -> list[str]:
        """A line a filter."""
        lines = []
        for one in self.filters:
            counts = self.counts[one.name]
            total = counts.passed + counts.refused + counts.failed
            lines.append(
                f"{one.name} {one.version}: {total} alerts judged, {counts.passed} passed, {counts.failed} failed"
            )
        return lines
