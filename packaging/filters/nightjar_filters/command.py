"""`nightjar-filter`: the command line."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import sys
from pathlib import Path

from .connection import properties, slot
from .filters import load_all
from .judge import Judge, say
from .packet import PacketReader, schema_source
from .trouble import TRY_AGAIN, Trouble

EXAMPLES = """examples:
  nightjar-filter Filter001.py --files alerts/         what passes of a folder of Avro files
  nightjar-filter Filter001.py --files alerts/ --check  how many alerts a second it judges
  nightjar-filter Filter001.py --brokers kafka.example:9092
"""


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line, parsed."""
    line = argparse.ArgumentParser(
        prog="nightjar-filter",
        description="Runs filters of alerts: what passes goes unchanged to {prefix}_{night}_{filter}, each alert once.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    line.add_argument("filter", nargs="+", type=Path, metavar="FILE.py", help="files with classes derived from AlertFilter")
    line.add_argument("--files", nargs="+", type=Path, metavar="PATH", help="judge Avro files instead of Kafka's topics")
    line.add_argument("--check", action="store_true", help="with --files: measure how many alerts a second are judged")
    line.add_argument("--seconds", type=float, default=5.0, help="how long --check measures [5]")
    line.add_argument("--brokers", default="", metavar="HOST:PORT,…", help="where Kafka is")
    line.add_argument("--kafka", type=Path, metavar="FILE", help="properties of librdkafka, one `name = value` a line")
    line.add_argument("--prefix", default="nightjar", help="first word of the topics [nightjar]")
    line.add_argument("--programid", default="1", help="1 public, 2 partnership, 3 private; several as 1,2 [1]")
    line.add_argument("--topics", default="", help="names, or a pattern that begins with ^, instead of prefix and programid")
    line.add_argument("--to", default="", metavar="PREFIX", help="prefix of the topics that are written [that of --prefix]")
    line.add_argument("--group", default="", help="consumer group; up to 16 processes share it [nightjar-filter-NAMES]")
    line.add_argument("--instance", default="", help="name of this process in its group [made of host and a free number]")
    line.add_argument("--replication", type=int, default=-1, help="copies of topics that are made [the broker's default]")
    line.add_argument("--batch", type=int, default=500, help="alerts a transaction, at most [500]")
    line.add_argument("--from-end", action="store_true", help="a new group begins with what comes from now on")
    line.add_argument("--to-end", action="store_true", help="stop when everything that is there is judged")
    line.add_argument("--schema", default="", metavar="FILE|URL", help="for registry framing: an .avsc file, or the registry")
    return line.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Runs the command; every failure is one sentence and an exit code."""
    try:
        sys.exit(run(arguments(words)))
    except Trouble as trouble:
        say(f"nightjar-filter: {trouble}")
        sys.exit(trouble.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def run(line: argparse.Namespace) -> int:
    """Does what the command line asks for."""
    if line.batch < 1:
        raise Trouble("--batch must be at least 1")
    judge = Judge(load_all(line.filter), PacketReader(schema_source(line.schema) if line.schema else None))
    if line.files:
        return on_files(judge, line)
    if line.check:
        raise Trouble("--check measures on files; add --files FOLDER")
    on_kafka(judge, line)
    return 0


def on_files(judge: Judge, line: argparse.Namespace) -> int:
    """Files instead of topics."""
    from . import files

    damaged = 0
    if line.check:
        print(files.check(judge, line.files, line.seconds))
    else:
        damaged = files.judge_files(judge, line.files)
    for sentence in judge.summary():
        say(sentence)
    return 1 if damaged else 0


def on_kafka(judge: Judge, line: argparse.Namespace) -> None:
    """Topics to topics until a signal comes."""
    from confluent_kafka import KafkaException

    from .outputs import Outputs
    from .stream import Plan, Stream

    names = ".".join(one.name for one in judge.filters)
    group = line.group or f"nightjar-filter-{names}"
    known = properties(line.brokers, line.kafka)
    instance, lock = (line.instance, None) if line.instance else slot(group)
    pattern = f"^{re.escape(line.prefix)}_[0-9]{{8}}_programid[{''.join(re.findall('[0-9]', line.programid))}]$"
    topics = [one.strip() for one in line.topics.split(",")] if line.topics else [pattern]
    if line.topics.startswith("^"):
        topics = [line.topics]
    plan = Plan(topics, group, instance, line.batch, line.from_end, line.to_end)
    stop = {"asked": False}

    def asked(_signal: int, _frame: object) -> None:
        stop["asked"] = True

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    try:
        stream = Stream(known, plan, judge, Outputs(known, line.to or line.prefix, line.replication))
        stream.check_topics()
        say(f"judging {', '.join(topics)} with {names}, group {group}")
        try:
            stream.run(lambda: stop["asked"], notify)
        finally:
            for sentence in judge.summary():
                say(sentence)
    except KafkaException as error:
        raise Trouble(f"kafka: {error}; look at --brokers and --kafka", TRY_AGAIN) from error
    if lock is not None:
        lock.close()


def notify(status: str) -> None:
    """Tells systemd that it runs, and what it has done."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address[0] == "@" else address)
            channel.sendall(f"READY=1\nSTATUS={status}".encode())


if __name__ == "__main__":
    main()
