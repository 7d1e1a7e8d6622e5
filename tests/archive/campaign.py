"""An archive that is killed again and again: campaign.py NIGHTJAR BROKER TOPIC OUT KILLS [flawed].

Afterwards what plain fastavro finds in its files is held against what plain Python reads from the topic: the set of candid,
how often each is there, and the records themselves. The index has to say the same. With `flawed` the files lose the positions
that they hold, and the group its own, after every kill: the control. Prints one line of figures."""

import collections
import io
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import time

import fastavro

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "filters"))
from campaign import Ear, read  # noqa: E402


def forget_positions(out: pathlib.Path) -> None:
    """Takes the positions out of every file, as if they were kept elsewhere and lost."""
    for path in out.rglob("*.avro"):
        data = path.read_bytes()
        at = data.index(b"nightjar.positions") + len(b"nightjar.positions") + 3  # the length takes three bytes
        path.write_bytes(data[:at] + b"{}".ljust(8192) + data[at + 8192 :])


def main() -> None:
    """The campaign."""
    program, broker, topic, out, kills = sys.argv[1], sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4]), int(sys.argv[5])
    line = [program, "archive", "--brokers", broker, "--topics", topic, "--out", str(out), "--megabytes", "1", "--seconds", "1"]
    flawed = sys.argv[6:] == ["flawed"]
    chance = random.Random(4)
    ear = Ear()
    grown = set()
    for turn in range(kills):
        group = ["--group", f"flawed-{turn}" if flawed else "archive"]
        process = subprocess.Popen([*line, *group], env={**os.environ, "NOTIFY_SOCKET": ear.address}, stderr=subprocess.DEVNULL)
        ear.wait(1)  # it ends with a time-out where the archive does not start
        # From before the group is joined to the middle of one of the files.
        time.sleep(chance.uniform(0.0, 2.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        ear.forget()
        grown.add(len(list(out.rglob("*.avro"))))
        if flawed:
            forget_positions(out)
    # Whoever sends may not be through yet.
    before = -1
    while (now := len(read(broker, topic))) != before:
        before = now
        time.sleep(5)
    last = subprocess.run([*line, *group, "--to-end"], capture_output=True, text=True, timeout=400)
    if last.returncode:
        sys.exit(last.stderr)
    unfinished = list(out.rglob("*.tmp"))

    held: dict[int, list] = collections.defaultdict(list)
    files = sorted(out.rglob("*.avro"))
    for path in files:
        with open(path, "rb") as file:
            for record in fastavro.reader(file):
                held[record["candid"]].append(record)
    messages = read(broker, topic)
    lost = changed = 0
    there = set()
    for message in messages:
        (record,) = fastavro.reader(io.BytesIO(message.value()))
        there.add(record["candid"])
        lost += record["candid"] not in held
        changed += record["candid"] in held and held[record["candid"]][0] != record
    twice = sum(len(records) > 1 for records in held.values())
    more = sum(candid not in there for candid in held)
    rows = collections.Counter()
    wrong = 0
    for path in out.rglob("index.sqlite"):
        for row in sqlite3.connect(path).execute("SELECT candid, object, jd, ra, dec, mag, fid, exposure FROM alerts"):
            rows[row[0]] += 1
            record = held[row[0]][0]
            seen = record["candidate"]
            # The packet's float, as the index keeps it: the same number with more digits.
            wrong += row[1:5] != (record["objectId"], seen["jd"], seen["ra"], seen["dec"])
            wrong += row[5] != seen["magpsf"] or row[6] != seen["fid"] or not row[7]
    wrong += rows != collections.Counter(dict.fromkeys(held, 1))
    if kills > 4 and not flawed and len(grown) < 3:
        sys.exit(f"the kills hit nothing: {grown}")
    print(
        f"{kills} kills, {len(grown)} different numbers of files at them: {len(messages)} in the topic, {len(held)} in"
        f" {len(files)} files decoded by fastavro, {lost} lost, {twice} twice, {more} too many, {changed} changed,"
        f" {wrong} wrong in the index, {len(unfinished)} unfinished"
    )
    if lost or twice or more or changed or wrong or unfinished or not messages:
        sys.exit(1)


main()
