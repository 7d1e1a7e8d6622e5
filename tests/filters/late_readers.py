"""Readers that come late, from a time, or again: late_readers.py BROKER PREFIX ALERTS SECOND_NIGHT.

ALERTS are those of both nights; SECOND_NIGHT is a UTC moment between them. The reader is the example of the package.
"""

import pathlib
import random
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "packaging/examples/consume_alerts.py"


def start(*words: str) -> subprocess.Popen:
    """The example, running."""
    line = [sys.executable, str(EXAMPLE), sys.argv[1], sys.argv[2], *words]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def candids(text: str) -> list[int]:
    """Numbers of the alerts that were printed; a line that the kill cut off does not count."""
    whole = text[: text.rfind("\n") + 1]
    return [int(line.split()[1]) for line in whole.splitlines()]


def to_end(*words: str) -> list[int]:
    """What the example prints until it has caught up."""
    process = start("--to-end", *words)
    out, err = process.communicate(timeout=180)
    if process.returncode or "Traceback" in err:
        sys.exit(err)
    return candids(out)


def check(what: str, truth: bool, detail: str) -> None:
    """One promise."""
    print(f"{what}: {detail}")
    if not truth:
        sys.exit(f"{what}: not so")


def main() -> None:
    """Each way to begin."""
    folder, moment = pathlib.Path(sys.argv[3]), sys.argv[4]
    nights = [{int(path.stem) for path in sorted(night.glob("*.avro"))} for night in sorted(folder.iterdir())]
    everything = nights[0] | nights[1]

    got = to_end("--group", "late")
    check("two nights late", sorted(got) == sorted(everything), f"{len(got)} of {len(everything)}")
    check("where it left off", to_end("--group", "late") == [], "nothing new")
    got = to_end("--group", "late", "--from", "beginning")
    check("once more from the beginning", sorted(got) == sorted(everything), f"{len(got)}")
    got = to_end("--group", "time", "--from", moment)
    check("from a time", sorted(got) == sorted(nights[1]), f"{len(got)} of {len(nights[1])}")
    got = to_end("--group", "now", "--from", "now")
    check("from now on", got == [], "nothing")

    # Killed in the middle, several times: none is left out, and what comes again is what was read in the last seconds.
    chance = random.Random(1)
    seen: list[int] = []
    for _ in range(4):
        process = start("--group", "killed")
        # The one before may have read everything and said so to the broker: then nothing comes.
        patience = threading.Timer(30, process.kill)
        patience.start()
        lines = [process.stdout.readline() for _ in range(chance.randint(5, 25))]
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        patience.cancel()
        # The same buffered stream to its end: a second one would begin behind what this one holds.
        seen += candids("".join(lines) + process.stdout.read())
        process.wait()
    seen += to_end("--group", "killed")
    check("killed four times", set(seen) == everything, f"{len(seen)} lines of {len(set(seen))} alerts")


main()
