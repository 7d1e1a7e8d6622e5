#!/usr/bin/env python3
"""Prints the alerts of the nights as they come.

    consume_alerts.py BROKER                                 goes on where this group left off; the first time from the beginning
    consume_alerts.py BROKER --from beginning                everything that the broker still has, once more
    consume_alerts.py BROKER --from 2026-11-24T03:00:00      what came since then (UTC)
    consume_alerts.py BROKER --from now                      what comes from now on
    consume_alerts.py BROKER --group mine --to-end           a position of one's own; stops when it has caught up

Needs confluent-kafka and fastavro. The broker keeps the position of each group, so that whoever joins two nights late gets
both nights, and a reader that was killed goes on. A position moves when an alert has been dealt with, and is written to the
broker every five seconds: after a crash the alerts of the last seconds come again, and none is left out. `candid` tells those
that were seen. Who must do each alert once puts the result and the position into one transaction, as nightjar-filter does.
"""

import argparse
import datetime
import io
import sys

import fastavro
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, Message, TopicPartition


def arguments() -> argparse.Namespace:
    """The command line."""
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("broker")
    line.add_argument("prefix", nargs="?", default="nightjar", help="first word of the topics [nightjar]")
    line.add_argument("--from", dest="start", default="", help="beginning, now, or a time (UTC) [where the group left off]")
    line.add_argument("--group", default="nightjar-example", help="consumer group [nightjar-example]")
    line.add_argument("--to-end", action="store_true", help="stop when everything that is there was printed")
    return line.parse_args()


def placed(consumer: Consumer, partitions: list[TopicPartition], start: str) -> list[TopicPartition]:
    """The partitions with the offsets at which reading begins."""
    if start in ("beginning", "now"):
        offset = OFFSET_BEGINNING if start == "beginning" else OFFSET_END
        return [TopicPartition(one.topic, one.partition, offset) for one in partitions]
    moment = datetime.datetime.fromisoformat(start)
    moment = moment.replace(tzinfo=moment.tzinfo or datetime.timezone.utc)
    # The broker's own clock: when an alert came to it, not when it was seen.
    since = int(moment.timestamp() * 1000)
    return consumer.offsets_for_times([TopicPartition(one.topic, one.partition, since) for one in partitions], timeout=30)


def show(message: Message) -> None:
    """One alert, one line."""
    (alert,) = fastavro.reader(io.BytesIO(message.value()))
    found = alert["candidate"]
    print(
        alert["objectId"],
        alert["candid"],
        f"jd {found['jd']:.5f}  ra {found['ra']:.5f}  dec {found['dec']:+.5f}  mag {found['magpsf']:.2f}",
        "brighter" if found["isdiffpos"] in ("t", "1") else "fainter",
        flush=True,
    )


def main() -> None:
    """Reads until it is stopped."""
    line = arguments()
    begun: set[tuple[str, int]] = set()
    ended: set[tuple[str, int]] = set()
    consumer = Consumer(
        {
            "bootstrap.servers": line.broker,
            "group.id": line.group,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",  # the default of this client, not of Java's
            "topic.metadata.refresh.interval.ms": 30000,  # a night's topic appears within this time
            "session.timeout.ms": 10000,  # one that was killed holds its partitions no longer than this
            "enable.auto.offset.store": False,  # an alert counts as read when it was dealt with
            "enable.partition.eof": line.to_end,
        }
    )

    def on_assign(_consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Only at the start: a partition that comes back later goes on where it was.
        new = [one for one in partitions if (one.topic, one.partition) not in begun]
        begun.update((one.topic, one.partition) for one in partitions)
        ended.clear()
        if line.start and new:
            rest = [one for one in partitions if one not in new]
            consumer.assign(rest + placed(consumer, new, line.start))

    consumer.subscribe([f"^{line.prefix}_[0-9]{{8}}_programid[0-9]"], on_assign=on_assign)
    try:
        while not (line.to_end and begun and {(one.topic, one.partition) for one in consumer.assignment()} <= ended):
            message = consumer.poll(1.0)
            if message is None:
                continue
            error = message.error()
            if error is None:
                show(message)
                consumer.store_offsets(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add((message.topic(), message.partition()))
            else:
                print(error, file=sys.stderr)
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
