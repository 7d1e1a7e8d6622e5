"""Alerts in, alerts out: consumed, judged and produced in one transaction.

A round takes a batch, judges it, produces what passes, and hands the positions of the batch to the same transaction
(KIP-98, KIP-447). Either all of it is there for readers of committed messages or none, so a process that dies anywhere
neither loses nor doubles an alert; the next one begins at the committed positions.

While a transaction is open nothing is polled, so partitions cannot change hands in its middle without the broker knowing:
the offsets carry the generation of the group, and an outdated one is refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from .connection import Journal, quiet_logger
from .judge import Judge, Verdict, say
from .outputs import Outputs
from .trouble import TRY_AGAIN, Trouble

CALL_SECONDS = 60.0  # what one call to the coordinator may take
MOST_PAUSE = 30.0  # between attempts, seconds
# What no further attempt cures.
HOPELESS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "may not read or write a topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "may not use the consumer group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "may not use the transactional id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "may not use the cluster so",
    KafkaError._AUTHENTICATION: "is not let in",
    KafkaError.SASL_AUTHENTICATION_FAILED: "is not let in",
    KafkaError.MSG_SIZE_TOO_LARGE: "sends more than a topic's max.message.bytes allows",
}
Place = tuple[str, int]


@dataclass
class Plan:
    """What to read, and how."""

    topics: list[str]
    """Names, or patterns that begin with ^."""
    group: str
    instance: str
    batch: int = 500
    from_end: bool = False
    to_end: bool = False


class Stream:
    """Filters on topics."""

    def __init__(self, properties: dict[str, Any], plan: Plan, judge: Judge, outputs: Outputs) -> None:
        self._plan = plan
        self._judge = judge
        self._outputs = outputs
        self._assigned: set[Place] = set()
        self._ended: set[Place] = set()
        self._changed = False
        self._assignments = 0
        self._told: set[str] = set()
        self._empty_since = time.monotonic()
        common = {**properties, "error_cb": Journal(), "client.id": "nightjar-filter", "logger": quiet_logger()}
        self._consumer = Consumer(
            {
                "topic.metadata.refresh.interval.ms": 10000,  # a night's topic appears within this time
                "queued.max.messages.kbytes": 65536,
                "session.timeout.ms": 10000,
                # A process that comes back under its name takes its partitions up at once.
                "group.instance.id": plan.instance,
                **common,
                "group.id": plan.group,
                "auto.offset.reset": "latest" if plan.from_end else "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": plan.to_end,
                "partition.assignment.strategy": "range,roundrobin",
            }
        )
        self._producer = Producer(
            {
                "compression.type": "zstd",
                "linger.ms": 5,
                "queue.buffering.max.kbytes": 65536,
                "message.max.bytes": 8 << 20,
                "partitioner": "murmur2_random",
                **common,
                "transactional.id": plan.instance,
                "transaction.timeout.ms": 60000,
            }
        )

    def check_topics(self) -> None:
        """One sentence where a topic is missing: a name ends the program, a pattern waits for its night."""
        try:
            there = set(self._consumer.list_topics(timeout=20).topics)
        except KafkaException as error:
            raise Trouble(f"no broker answers ({_text(error)}); look at --brokers and the network", TRY_AGAIN) from error
        patterns = [topic for topic in self._plan.topics if topic.startswith("^")]
        for name in set(self._plan.topics) - set(patterns):
            if name not in there:
                near = ", ".join(sorted(one for one in there if not one.startswith("__"))[:8]) or "none"
                raise Trouble(f"there is no topic {name}; there are: {near}")
        if patterns and not any(re.match(pattern, topic) for pattern in patterns for topic in there):
            what = f"no topic matches {' or '.join(patterns)} yet"
            if self._plan.to_end:
                raise Trouble(f"{what}; look at --prefix and --topics")
            say(f"{what}: it is waited for")

    def run(self, stopped: Callable[[], bool], ready: Callable[[str], None]) -> None:
        """Rounds until `stopped`, or until the end of the topics where the plan says so."""
        self._patiently("introducing the producer", lambda: self._producer.init_transactions(CALL_SECONDS), stopped)
        self._consumer.subscribe(
            self._plan.topics, on_assign=self._on_assign, on_revoke=self._on_change, on_lost=self._on_change
        )
        ready("")
        pause = 1.0
        try:
            while not stopped():
                messages = self._batch()
                if not messages:
                    if self._plan.to_end and self._at_end():
                        return
                    continue
                if self._round(messages, stopped):
                    pause = 1.0
                    ready("; ".join(self._judge.summary()))
                else:
                    time.sleep(pause)
                    pause = min(2 * pause, MOST_PAUSE)
        finally:
            self._consumer.close()

    # -- the group ------------------------------------------------------------------------------------

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assigned = {(one.topic, one.partition) for one in partitions}
        self._ended &= self._assigned
        self._changed = True
        self._assignments += 1
        self._empty_since = time.monotonic()

    def _on_change(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._assigned = set()
        self._changed = True

    def _at_end(self) -> bool:
        if self._assigned:
            return self._assigned <= self._ended
        # More processes than partitions: there is nothing to do for this one.
        return self._assignments > 0 and time.monotonic() - self._empty_since > 15.0

    def _batch(self) -> list[Message]:
        """Messages of partitions that are this process's own."""
        self._changed = False
        taken = self._consumer.consume(self._plan.batch, 0.2)
        if self._changed and any(one.error() is None for one in taken):
            # The hands changed while the batch was being filled: it is read again from what is committed.
            self._rewind_to_committed()
            return []
        messages = []
        for one in taken:
            error = one.error()
            if error is None:
                self._ended.discard((one.topic(), one.partition()))
                messages.append(one)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add((one.topic(), one.partition()))
            else:
                self._refuse_hopeless(error)
                if error.name() not in self._told:
                    self._told.add(error.name())
                    say(f"kafka: {error.str()}; it is tried again")
        return messages

    def _rewind_to_committed(self) -> None:
        places = [TopicPartition(topic, partition) for topic, partition in self._assigned]
        if not places:
            return
        fallback = OFFSET_END if self._plan.from_end else OFFSET_BEGINNING
        for one in self._consumer.committed(places, timeout=CALL_SECONDS):
            self._consumer.seek(TopicPartition(one.topic, one.partition, one.offset if one.offset >= 0 else fallback))

    # -- a round --------------------------------------------------------------------------------------

    def _round(self, messages: list[Message], stopped: Callable[[], bool]) -> bool:
        """Judges a batch and commits it as a whole; false where it has to be taken again."""
        first: dict[Place, int] = {}
        following: dict[Place, int] = {}
        judged: list[Verdict] = []
        try:
            self._producer.begin_transaction()
            for message in messages:
                place = (message.topic(), message.partition())
                first.setdefault(place, message.offset())
                following[place] = message.offset() + 1
                _, verdicts = self._judge.packet(message.value(), dict(message.headers() or []))
                for verdict in verdicts:
                    self._send_on(message, verdict)
                judged += verdicts
            offsets = [TopicPartition(topic, partition, after) for (topic, partition), after in following.items()]
            group = self._consumer.consumer_group_metadata()
            self._retried(lambda: self._producer.send_offsets_to_transaction(offsets, group, CALL_SECONDS), stopped)
            self._retried(lambda: self._producer.commit_transaction(CALL_SECONDS), stopped)
        except KafkaException as error:
            self._undo(error, first, stopped)
            return False
        self._judge.count(judged)
        return True

    def _send_on(self, message: Message, verdict: Verdict) -> None:
        if not (verdict.passed or verdict.failure):
            return
        one = verdict.filter
        topic = self._outputs.topic(message.topic(), one.name, dead=bool(verdict.failure))
        headers = list(message.headers() or [])
        headers += [("filter", one.name.encode()), ("filter_version", one.version.encode())]
        if verdict.label:
            headers.append(("filter_label", verdict.label.encode()))
        if verdict.failure:
            headers.append(("filter_error", verdict.failure.encode()[:1000]))
        while True:
            try:
                self._producer.produce(topic, value=message.value(), key=message.key(), headers=headers)
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _undo(self, error: KafkaException, first: dict[Place, int], stopped: Callable[[], bool]) -> None:
        """Takes the transaction back, and the positions with it."""
        cause = error.args[0]
        self._refuse_hopeless(cause)
        if cause.fatal():
            what = f"{_text(error)}; another process may run under the name {self._plan.instance}"
            raise Trouble(f"{what}: give one of them another --instance, then start again", TRY_AGAIN) from error
        say(f"kafka: {_text(error)}; the batch is judged again")
        self._patiently("taking back a transaction", lambda: self._producer.abort_transaction(CALL_SECONDS), stopped)
        for (topic, partition), offset in first.items():
            try:
                self._consumer.seek(TopicPartition(topic, partition, offset))
            except KafkaException:
                pass  # it is another process's now, which begins at what is committed

    @staticmethod
    def _refuse_hopeless(error: KafkaError) -> None:
        if error.code() in HOPELESS:
            what = f"the account {HOPELESS[error.code()]} ({error.str()})"
            raise Trouble(f"{what}; ask those who run the cluster, then start again", TRY_AGAIN)

    def _patiently(self, doing: str, call: Callable[[], None], stopped: Callable[[], bool]) -> None:
        """Calls until it succeeds; a fatal answer ends the program."""
        try:
            self._retried(call, stopped)
        except KafkaException as error:
            self._refuse_hopeless(error.args[0])
            raise Trouble(f"{doing}: {_text(error)}; look at the broker, then start again", TRY_AGAIN) from error

    @staticmethod
    def _retried(call: Callable[[], None], stopped: Callable[[], bool]) -> None:
        """Repeats a call of a transaction for as long as the client says that it may be repeated."""
        while True:
            try:
                return call()
            except KafkaException as error:
                if not error.args[0].retriable() or stopped():
                    raise
                time.sleep(0.2)


def _text(error: KafkaException) -> str:
    return error.args[0].str() if error.args and isinstance(error.args[0], KafkaError) else str(error)
