"""How Kafka is reached: brokers, a file of librdkafka's properties, the password as a systemd credential."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from confluent_kafka import KafkaError

from .judge import say
from .trouble import CONFIGURATION, TRY_AGAIN, Trouble


def properties(brokers: str, file: Path | None) -> dict[str, Any]:
    """The properties that every client gets; `brokers` wins over the file."""
    found: dict[str, Any] = {}
    if file is not None:
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Trouble(f"{file} cannot be read ({error}); it holds properties of librdkafka, name = value", 78) from error
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if not line or line[0] in "#!":
                continue
            name, equals, value = line.partition("=")
            if not equals:
                raise Trouble(f"{file}, line {number}: {line!r} is not name = value; correct it", CONFIGURATION)
            found[name.strip()] = value.strip()
    if brokers:
        found["bootstrap.servers"] = brokers
    if not found.get("bootstrap.servers"):
        raise Trouble("no broker is named; give --brokers HOST:PORT, or --files FOLDER to work without Kafka", 78)
    password = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "kafka-password"
    if password.exists():
        found["sasl.password"] = password.read_text().strip()
    return found


def quiet_logger() -> logging.Logger:
    """Where the client's own log goes: nowhere, unless somebody listens. What matters comes as errors."""
    logger = logging.getLogger("nightjar_filters.kafka")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


class Journal:
    """Tells of trouble that the client gets over by itself: each kind once a minute."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def __call__(self, error: KafkaError) -> None:
        now = time.monotonic()
        if now - self._told.get(error.name(), -60.0) >= 60.0:
            self._told[error.name()] = now
            say(f"kafka: {error.str()}; it is tried again")


def slot(group: str) -> tuple[str, IO[str]]:
    """A name that this process alone has in its group on this host, and the lock that holds it.

    The same name after a crash lets Kafka end the transaction that was left open at once, instead of after a time-out.
    """
    folder = Path(os.environ.get("RUNTIME_DIRECTORY") or Path(tempfile.gettempdir()) / f"nightjar-filter-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for number in range(1024):
            lock = open(folder / f"{group}.{number}", "w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            return f"{group}-{socket.gethostname()}-{number}", lock
    except OSError as error:
        raise Trouble(f"{folder}: {error.strerror}; set RUNTIME_DIRECTORY to a folder of your own", TRY_AGAIN) from error
    raise Trouble(f"1024 processes of the group {group} run on this host; stop some", TRY_AGAIN)
