"""Three processes of one group, two filters in each, one of which fails on some alerts: group.py BROKER TOPIC ALERTS.

Messages that are no packets are in the topic as well."""

import collections
import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import tempfile

import fastavro
from confluent_kafka import Producer

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
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


def reader_of_campaign():
    """`read` of the campaign beside this file."""
    spec = importlib.util.spec_from_file_location("campaign", HERE / "campaign.py")
    module = importlib.util.module_from_spec(spec)
    source = (HERE / "campaign.py").read_text().rsplit("\nmain()", 1)[0]
    exec(compile(source, spec.origin, "exec"), module.__dict__ | {"__file__": spec.origin}, namespace := {})
    module.__dict__.update(namespace)
    return namespace["read"]


def main() -> None:
    """Runs the group and counts."""
    broker, topic, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    prefix, night, _ = topic.split("_")
    producer = Producer({"bootstrap.servers": broker})
    whole = next(iter(folder.glob("*.avro"))).read_bytes()
    for payload in (b"no packet at all", whole[:30000]):
        producer.produce(topic, value=payload, key=b"x")
    producer.flush(30)
    with tempfile.TemporaryDirectory() as place:
        file = pathlib.Path(place, "two.py")
        file.write_text(FILTERS)
        line = [sys.executable, "-m", "nightjar_filters", str(file), "--brokers", broker, "--prefix", prefix]
        line += ["--to", f"{prefix}two", "--replication", "1", "--batch", "11", "--to-end"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "packaging/filters"), "RUNTIME_DIRECTORY": place}
        group = [subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        said = [process.communicate(timeout=240)[1] for process in group]
    if any(process.returncode for process in group):
        sys.exit("\n".join(said))
    alerts = {}
    for path in folder.glob("*.avro"):
        (alert,) = fastavro.reader(io.BytesIO(path.read_bytes()))
        alerts[alert["candid"]] = alert
    read = reader_of_campaign()
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
