"""Three processes of one group, two filters in each, one of which fails on some alerts: group.py BROKER TOPIC ALERTS.

Messages that are no packets are in the topic as well."""

import collections
import io
import os
import pathlib
import subprocess
import sys
import tempfile

import fastavro
from campaign import read
from confluent_kafka import Producer

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILTERS = '''
from nightjar_filters import AlertFilter

class Bright(AlertFilter):
    version = "2.1"
    def filter(self, alert):
        return "very" if alert.mag < 17 else alert.mag < 18

class Broken(AlertFilter):
    name = "broken"
    def filter(self, alert):
        if alert.candid % 3 == 0:
            raise KeyError("no such field")
        return alert.difference[31, 31] > 0 and alert.snr > 20
'''


def run(broker: str, *words: str) -> subprocess.Popen:
    """The command, started."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "packaging/filters")}
    line = [sys.executable, "-m", "nightjar_filters", *words, "--brokers", broker]
    return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)


def main() -> None:
    """Runs the group and counts."""
    broker, topic, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    prefix, night, _ = topic.split("_")
    producer = Producer({"bootstrap.servers": broker})
    whole = next(iter(folder.glob("*.avro"))).read_bytes()
    for payload in (b"no packet at all", whole[:-2000]):
        producer.produce(topic, value=payload, key=b"x")
    producer.flush(30)
    with tempfile.TemporaryDirectory() as place:
        file = pathlib.Path(place, "two.py")
        file.write_text(FILTERS)
        absent = run(broker, str(file), "--topics", "nowhere_20261124_programid1")
        told = absent.communicate(timeout=120)[1]
        if absent.returncode != 1 or "there is no topic nowhere_20261124_programid1; there are: " not in told:
            sys.exit(f"a missing topic: {told}")
        print(told.strip())
        words = ["--prefix", prefix, "--to", f"{prefix}two", "--replication", "1", "--batch", "11", "--to-end"]
        group = [run(broker, str(file), *words) for _ in range(3)]
        said = [process.communicate(timeout=240)[1] for process in group]
    if any(process.returncode for process in group):
        sys.exit("\n".join(said))
    alerts = {}
    for path in folder.glob("*.avro"):
        (alert,) = fastavro.reader(io.BytesIO(path.read_bytes()))
        alerts[alert["candid"]] = alert
    faults = []

    def hold(name: str, wanted: set[int], dead: bool = False) -> list:
        messages = read(broker, f"{prefix}two_{night}_{name}{'_dead' if dead else ''}")
        counts = collections.Counter(int(dict(m.headers() or []).get("candid", b"0")) for m in messages)
        there = {candid for candid in counts if candid}
        if there != wanted or any(count > 1 for candid, count in counts.items() if candid):
            faults.append(f"{name}: {len(wanted)} wanted, {len(there)} there, {max(counts.values())} at most")
        return messages

    bright = hold("Bright", {c for c, a in alerts.items() if a["candidate"]["magpsf"] < 18})
    headers = [dict(message.headers()) for message in bright]
    labels = sum("filter_label" in one for one in headers)
    if labels != sum(a["candidate"]["magpsf"] < 17 for a in alerts.values()) or headers[0]["filter_version"] != b"2.1":
        faults.append("labels or version")
    dead = hold("broken", {c for c in alerts if c % 3 == 0}, dead=True)
    reasons = collections.Counter(dict(m.headers())["filter_error"].split(b":")[0] for m in dead)
    if reasons != {b"KeyError": sum(c % 3 == 0 for c in alerts), b"PacketError": 2}:
        faults.append(f"reasons {reasons}")
    # Each process tells each kind once, however many alerts it costs.
    if any(text.count("KeyError") > 1 for text in said) or sum(text.count("KeyError") for text in said) == 0:
        faults.append("a failure was not told once")
    judged = [int(text.rsplit("Bright 2.1: ", 1)[1].split()[0]) for text in said]
    print(f"{len(alerts)} alerts and 2 others, judged by three processes: {judged}, {len(dead)} dead letters")
    if sum(judged) != len(alerts) + 2:
        faults.append("they judged another number")
    if faults:
        sys.exit("; ".join(faults))


main()
