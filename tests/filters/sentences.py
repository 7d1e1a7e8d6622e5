"""What a person gets wrong, and what is said about it: sentences.py ALERTS."""

import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOOD = "from nightjar_filters import AlertFilter\n\nclass Good(AlertFilter):\n    def filter(self, alert):\n        return alert.mag < 18\n"


def run(*words: str) -> tuple[int, str, str]:
    """The command's exit code and words."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "packaging/filters")}
    line = [sys.executable, "-m", "nightjar_filters", *words]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def main() -> None:
    """Every case; the first that is not so ends it."""
    alerts = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)

        def filter_of(name: str, text: str) -> str:
            (folder / name).write_text(text)
            return str(folder / name)

        def refused(code: int, wanted: list[str], *words: str) -> None:
            got, _, said = run(*words)
            lines = [line for line in said.splitlines() if line]
            if got != code or len(lines) != 1 or "Traceback" in said or not all(word in said for word in wanted):
                sys.exit(f"{words}: {got}, {said}")
            print(lines[0])

        good = filter_of("good.py", GOOD)
        files = ("--files", str(alerts))
        refused(78, ["syntax.py, line 2", "correct it"], filter_of("syntax.py", "class A:\n    x = =\n"), *files)
        bare = "from nightjar_filters import AlertFilter\nclass Bare(AlertFilter):\n    pass\n"
        refused(78, ["class Bare", "no method filter", "add it"], filter_of("bare.py", bare), *files)
        refused(78, ["no filter", "class Filter001"], filter_of("none.py", "x = 1\n"), *files)
        refused(78, ["ModuleNotFoundError"], filter_of("imports.py", "import nowhere_to_be_found\n"), *files)
        refused(78, ["No such file"], str(folder / "absent.py"), *files)
        refused(78, ["two filters named Good"], good, filter_of("again.py", GOOD), *files)
        named = GOOD.replace("class Good(AlertFilter):", "class Good(AlertFilter):\n    name = 'a_b/c'")
        refused(78, ["cannot be the last word of a topic"], filter_of("named.py", named), *files)
        refused(78, ["no broker is named"], good)
        refused(1, ["add --files"], good, "--check")
        refused(75, ["no broker answers"], good, "--brokers", "127.0.0.1:1")
        (folder / "kafka").write_text("bootstrap.servers: here\n")
        refused(78, ["line 1", "name = value"], good, "--kafka", str(folder / "kafka"))

        # A truncated file costs itself alone.
        some = sorted(alerts.glob("*.avro"))
        mixed = folder / "mixed"
        mixed.mkdir()
        for path in some[:10]:
            (mixed / path.name).write_bytes(path.read_bytes())
        (mixed / "cut.avro").write_bytes(some[11].read_bytes()[:-2000])
        code, out, said = run(good, "--files", str(mixed))
        told = [line for line in said.splitlines() if "cut.avro" in line]
        if code != 1 or len(told) != 1 or "truncated" not in told[0] or "10 alerts judged" not in said:
            sys.exit(f"truncated: {code}, {said}")
        print(told[0])

        # The same cut, by plain Python and by the command.
        import fastavro

        wanted = set()
        for path in some:
            with open(path, "rb") as file:
                (alert,) = fastavro.reader(file)
            if alert["candidate"]["magpsf"] < 18:
                wanted.add(str(alert["candid"]))
        code, out, said = run(good, *files)
        passed = [line.split()[2] for line in out.splitlines()]
        if code or set(passed) != wanted or len(passed) != len(wanted) or not wanted:
            sys.exit(f"files: {len(wanted)} wanted, {len(passed)} passed")
        code, out, _ = run(good, *files, "--check", "--seconds", "0.5")
        if code or "alerts a second" not in out:
            sys.exit("--check measures nothing")
        print(out.strip())

        # Every example runs on every alert.
        for example in sorted((ROOT / "packaging/filters/examples").glob("*.py")):
            code, _, said = run(str(example), *files)
            if code or " 0 failed" not in said:
                sys.exit(f"{example.name}: {code}, {said}")
            print(said.strip().splitlines()[-1])


main()
