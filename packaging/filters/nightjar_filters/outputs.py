"""Where alerts go that pass: one topic a night and filter, made where it is missing."""

from __future__ import annotations

import re
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from .connection import quiet_logger
from .trouble import TRY_AGAIN, Trouble

NIGHT = re.compile(r"(.*?)_?([0-9]{8})(?:_.*)?")
RETENTION_DAYS = 14


class Outputs:
    """Names topics and makes them."""

    def __init__(self, properties: dict[str, Any], prefix: str, replication: int) -> None:
        self._admin = AdminClient({**properties, "logger": quiet_logger()})
        self._prefix = prefix
        self._replication = replication
        self._known: dict[tuple[str, str, bool], str] = {}

    def topic(self, source: str, filter_name: str, dead: bool) -> str:
        """`{prefix}_{night}_{filter}`, with `_dead` for alerts on which the filter failed; there when this returns."""
        asked = (source, filter_name, dead)
        if asked not in self._known:
            name = output_name(self._prefix, source, filter_name, dead)
            self._make(name, source)
            self._known[asked] = name
        return self._known[asked]

    def _make(self, name: str, source: str) -> None:
        try:
            there = self._admin.list_topics(timeout=30).topics
            if name in there:
                return
            partitions = len(there[source].partitions) if source in there else 16
            new = NewTopic(
                name,
                num_partitions=partitions,
                replication_factor=self._replication,
                config={
                    "retention.ms": str(RETENTION_DAYS * 86_400_000),
                    "message.timestamp.type": "LogAppendTime",
                    "max.message.bytes": str(8 << 20),
                },
            )
            self._admin.create_topics([new], operation_timeout=30)[name].result()
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            command = f"kafka-topics.sh --create --topic {name} --partitions {16} --config max.message.bytes={8 << 20}"
            what = f"topic {name} is not there and cannot be made ({cause.str()})"
            raise Trouble(f"{what}; who runs the cluster can: {command}", TRY_AGAIN) from error


def output_name(prefix: str, source: str, filter_name: str, dead: bool) -> str:
    """Name of the topic for alerts of the topic `source`."""
    night = NIGHT.fullmatch(source)
    middle = night.group(2) if night else source
    return f"{prefix}_{middle}_{filter_name}{'_dead' if dead else ''}"
