"""The plain cut on a night's topic, killed again and again: campaign.py BROKER TOPIC ALERTS KILLS [flawed].

ALERTS is a folder with the night's packets as files. What the filter sent on is held against what a few lines of plain
Python find in these files. With `flawed` the positions are committed outside of the transaction, as a careless program does.
Prints one line of figures; fails where an alert is lost, doubled or changed.
"""

import collections
import io
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

import fastavro
from confluent_kafka import Consumer, KafkaError, TopicPartition

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILTER = ROOT / "packaging/filters/examples/signal_and_brightness.py"
FLAWED = """
import sys
from confluent_kafka import TopicPartition
from nightjar_filters import command, stream

def flawed(self, messages, stopped):
    ends = {(m.topic(), m.partition()): m.offset() + 1 for m in messages}
    self._consumer.commit(offsets=[TopicPartition(t, p, o) for (t, p), o in ends.items()], asynchronous=False)
    self._producer.begin_transaction()
    for message in messages:
        for verdict in self._judge.packet(message.value())[1]:
            self._send_on(message, verdict)
    self._producer.flush()
    self._producer.commit_transaction()
    return True

stream.Stream._round = flawed
command.main(sys.argv[1:])
"""


def start(broker: str, flawed: bool, notify: str, *words: str) -> subprocess.Popen:
    """Runs the filter as a person would."""
    program = ["-c", FLAWED] if flawed else ["-m", "nightjar_filters"]
    line = [sys.executable, *program, str(FILTER), "--brokers", broker, "--batch", "7", "--replication", "1", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "packaging/filters"), "NOTIFY_SOCKET": notify}
    return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)


class Ear:
    """Hears what the filter tells systemd: that it is ready, and each transaction that it has committed."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.address = f"{self._folder.name}/notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(120)

    def wait(self, times: int) -> None:
        """Until so many notices have come."""
        for _ in range(times):
            self._socket.recv(65536)

    def forget(self) -> None:
        """Drops what came from a process that is gone."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(65536)
        except BlockingIOError:
            self._socket.settimeout(120)


def read(broker: str, topic: str) -> list:
    """Everything of a topic for readers of committed messages."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": f"oracle-{random.random()}",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    # A commit is answered before its markers are in the partitions: the true end is that of uncommitted readers.
    ends = Consumer({"bootstrap.servers": broker, "group.id": "ends", "isolation.level": "read_uncommitted"})
    consumer.subscribe([topic])
    found, ended = [], set()
    partitions = len(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    begun = time.monotonic()
    while len(ended) < partitions:
        if time.monotonic() - begun > 300:
            sys.exit(f"reading {topic} back takes too long")
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is None:
            found.append(message)
        elif message.error().code() == KafkaError._PARTITION_EOF:
            _, high = ends.get_watermark_offsets(TopicPartition(topic, message.partition()), timeout=30)
            if message.offset() >= high:
                ended.add(message.partition())
        elif message.error().code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            sys.exit(str(message.error()))
    consumer.close()
    return found


def wanted(folder: pathlib.Path) -> dict[int, bytes]:
    """What should pass, found without the package: number and bytes."""
    passing = {}
    for path in folder.rglob("*.avro"):
        payload = path.read_bytes()
        (alert,) = fastavro.reader(io.BytesIO(payload))
        candidate = alert["candidate"]
        if abs(candidate["scorr"]) > 10 and -900 < candidate["magpsf"] < 19:
            passing[alert["candid"]] = payload
    return passing


def main() -> None:
    """The campaign."""
    broker, topic, folder, kills = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
    flawed = sys.argv[5:] == ["flawed"]
    chance = random.Random(10)
    prefix, night, _ = topic.split("_")
    words = ["--prefix", prefix, "--to", f"{prefix}{'flawed' if flawed else 'cut'}"]
    words += ["--group", "flawed" if flawed else "cut"]
    ear = Ear()
    for _ in range(kills):
        process = start(broker, flawed, ear.address, *words)
        # Ready, then up to two transactions, then somewhere in the next one.
        ear.wait(1 + chance.randint(0, 2))
        time.sleep(chance.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        ear.forget()
    last = start(broker, flawed, "", *words, "--to-end")
    said = last.stderr.read()
    if last.wait() != 0:
        sys.exit(f"the last run failed: {said}")
    passing = wanted(folder)
    sent = read(broker, f"{words[3]}_{night}_Filter001")
    counts = collections.Counter()
    changed = unnamed = 0
    for message in sent:
        headers = dict(message.headers() or [])
        (alert,) = fastavro.reader(io.BytesIO(message.value()))
        counts[alert["candid"]] += 1
        changed += message.value() != passing.get(alert["candid"])
        unnamed += headers.get("filter") != b"Filter001" or len(headers.get("filter_version", b"")) != 12
        unnamed += headers.get("candid") != str(alert["candid"]).encode() or message.key() != alert["objectId"].encode()
    lost = sum(candid not in counts for candid in passing)
    twice = sum(count > 1 for count in counts.values())
    more = sum(candid not in passing for candid in counts)
    left = int(said.rsplit("Filter001", 1)[1].split(": ")[1].split()[0])
    print(
        f"{kills} kills: {len(passing)} wanted, {len(sent)} sent, {lost} lost, {twice} twice, {more} too many,"
        f" {changed} changed, {unnamed} without their headers; {left} were left to the last run"
    )
    if lost or twice or more or changed or unnamed:
        sys.exit(1)


if __name__ == "__main__":
    main()
