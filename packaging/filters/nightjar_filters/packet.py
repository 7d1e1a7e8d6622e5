"""Packets to records: the same schema is parsed once, not once a message.

Two framings are understood: the Avro object container with one record that ZTF and Nightjar send, and the wire format of
Confluent's schema registry (byte 0, number of the schema, record), for which a schema has to be given.
"""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro

from .trouble import TRY_AGAIN, Trouble

MAGIC = b"Obj\x01"
MOST_SCHEMAS = 64  # remembered at a time; a stream has one or two

Record = dict[str, Any]


class PacketError(ValueError):
    """Bytes that are not a packet."""


def _long(data: bytes, at: int) -> tuple[int, int]:
    """An Avro long at `at`, and where it ends."""
    value = shift = 0
    while shift < 64:
        if at >= len(data):
            raise PacketError("the packet is truncated")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
    raise PacketError("the packet is damaged: a number does not end")


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """Avro bytes at `at`, and where they end."""
    length, at = _long(data, at)
    if length < 0 or at + length > len(data):
        raise PacketError("the packet is truncated")
    return data[at : at + length], at + length


def _metadata(data: bytes) -> tuple[dict[bytes, bytes], int]:
    """The metadata of a container file, and where its sync marker begins."""
    pairs: dict[bytes, bytes] = {}
    at = len(MAGIC)
    while True:
        count, at = _long(data, at)
        if count == 0:
            return pairs, at
        if count < 0:
            count = -count
            _, at = _long(data, at)
        for _ in range(count):
            key, at = _bytes(data, at)
            pairs[key], at = _bytes(data, at)


class PacketReader:
    """Decodes packets. One a process: it remembers the schemas that it met."""

    def __init__(self, registry: Callable[[int], Any] | None = None) -> None:
        """`registry` gives the schema of a number, for packets in registry framing."""
        self._registry = registry
        self._heads: dict[bytes, Any] = {}
        self._numbers: dict[int, Any] = {}
        self._last = b""

    def read(self, payload: bytes) -> Record:
        """The one record of a message."""
        if payload[:4] == MAGIC:
            return self._contained(payload)
        if len(payload) > 5 and payload[0] == 0:
            return self._registered(payload)
        raise PacketError("not an alert packet: it begins with neither 'Obj' nor a zero byte")

    def _contained(self, payload: bytes) -> Record:
        if not (self._last and payload.startswith(self._last)):
            self._last = self._introduce(payload)
        head = self._last
        schema = self._heads[head]
        start = len(head) + 16
        count, at = _long(payload, start)
        if schema is None or count != 1:
            return self._general(payload)
        size, at = _long(payload, at)
        end = at + size
        if size < 0 or end + 16 > len(payload):
            raise PacketError("the packet is truncated")
        if payload[end : end + 16] != payload[len(head) : start]:
            raise PacketError("the packet is damaged: its two sync markers differ")
        return self._decode(payload[at:end], schema)

    def _introduce(self, payload: bytes) -> bytes:
        """Remembers the schema of a container; gives what comes before its sync marker."""
        pairs, at = _metadata(payload)
        head = payload[:at]
        if head not in self._heads:
            if len(self._heads) >= MOST_SCHEMAS:
                self._heads.clear()
            codec = pairs.get(b"avro.codec", b"null")
            self._heads[head] = _parsed(pairs.get(b"avro.schema", b"")) if codec == b"null" else None
        return head

    def _general(self, payload: bytes) -> Record:
        """A compressed packet, or one in several blocks."""
        records = list(records_of(io.BytesIO(payload)))
        if len(records) != 1:
            raise PacketError(f"the packet holds {len(records)} records instead of one")
        return records[0]

    def _registered(self, payload: bytes) -> Record:
        number = int.from_bytes(payload[1:5], "big")
        if number not in self._numbers:
            if self._registry is None:
                raise PacketError(f"the packet needs schema {number} of a registry: name it with --schema")
            self._numbers[number] = self._registry(number)
        return self._decode(payload[5:], self._numbers[number])

    @staticmethod
    def _decode(record: bytes, schema: Any) -> Record:
        stream = io.BytesIO(record)
        try:
            decoded = fastavro.schemaless_reader(stream, schema)
        except Exception as error:  # fastavro raises whatever the damaged bytes lead it to
            raise PacketError(f"the packet is damaged: {error or type(error).__name__}") from error
        if stream.tell() != len(record):
            raise PacketError("the packet is damaged: bytes are left after its record")
        if not isinstance(decoded, dict):
            raise PacketError("the packet is no record")
        return decoded


def _parsed(schema: bytes) -> Any:
    try:
        return fastavro.parse_schema(json.loads(schema))
    except Exception as error:
        raise PacketError(f"the schema of the packet is damaged: {error}") from error


def records_of(stream: Any) -> Iterator[Record]:
    """Every record of a container file, compressed or not: packets and files of the archive alike."""
    try:
        yield from fastavro.reader(stream)
    except Exception as error:
        raise PacketError(f"truncated or damaged Avro ({error or type(error).__name__})") from error


def schema_source(where: str) -> Callable[[int], Any]:
    """Schemas of registry framing: of a file (one for every number), or of a registry by its address."""
    if not where.startswith(("http://", "https://")):
        path = Path(where)
        try:
            parsed = fastavro.schema.load_schema(path)
        except Exception as error:
            raise Trouble(f"{path} is no Avro schema ({error}); name an .avsc file or the registry's address") from error
        return lambda _number: parsed

    def ask(number: int) -> Any:
        address = f"{where.rstrip('/')}/schemas/ids/{number}"
        try:
            with urllib.request.urlopen(address, timeout=20) as answer:
                return _parsed(json.load(answer)["schema"].encode())
        except (OSError, KeyError, ValueError) as error:
            raise Trouble(f"{address} gives no schema ({error}); look at the registry", TRY_AGAIN) from error

    return ask
