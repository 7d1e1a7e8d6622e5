"""Today's readers on the next schema's packets and the other way round, in fastavro: evolution.py FOLDER.

FOLDER holds today.json and next.json, and packets of today's schema: *.avro (ztf profile) and *.bin (registry profile)."""

import copy
import io
import json
import pathlib
import sys

import fastavro

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "packaging/filters"))
from nightjar_filters import Alert  # noqa: E402
from nightjar_filters.packet import PacketReader  # noqa: E402


def main() -> None:
    """Every packet, every direction, both profiles."""
    folder = pathlib.Path(sys.argv[1])
    texts = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("today", "next")}
    today, following = (fastavro.parse_schema(copy.deepcopy(texts[name])) for name in ("today", "next"))
    count = 0
    for path in sorted(folder.glob("*.avro")):
        payload, bare = path.read_bytes(), path.with_suffix(".bin").read_bytes()
        (old,) = fastavro.reader(io.BytesIO(payload))
        # Today's packet in the hands of the next reader: what is new has its default.
        (read,) = fastavro.reader(io.BytesIO(payload), reader_schema=following)
        assert read.pop("telescope") == "" and read["candidate"].pop("parallax") is None and read == old
        read = fastavro.schemaless_reader(io.BytesIO(bare[5:]), today, following)
        assert read.pop("telescope") == "" and read["candidate"].pop("parallax") is None
        assert read["candid"] == old["candid"]
        # The next packet in the hands of today's reader: what is new is passed over.
        new = copy.deepcopy(old)
        new["telescope"], new["candidate"]["parallax"] = "north", 0.5
        contained, datum = io.BytesIO(), io.BytesIO()
        fastavro.writer(contained, following, [new], codec="null")
        fastavro.schemaless_writer(datum, following, new)
        contained.seek(0)
        (back,) = fastavro.reader(contained, reader_schema=today)
        assert back == old
        assert fastavro.schemaless_reader(io.BytesIO(datum.getvalue()), following, today) == old
        # Filters take either, and see what is new.
        reader = PacketReader(lambda number: {1: today, 2: following}[number])
        for framed in (payload, contained.getvalue(), b"\0\0\0\0\1" + bare[5:], b"\0\0\0\0\2" + datum.getvalue()):
            alert = Alert(reader.read(framed))
            assert alert.candid == old["candid"] and alert["candidate"].get("parallax") in (None, 0.5)
        count += 1
    # A field without a default is no evolution: the next reader must refuse today's packets.
    careless = copy.deepcopy(texts["next"])
    del next(field for field in careless["fields"] if field["name"] == "telescope")["default"]
    try:
        next(fastavro.reader(io.BytesIO(payload), reader_schema=fastavro.parse_schema(careless)))
    except Exception as error:
        print(f"without a default: {error}")
    else:
        sys.exit("a field without a default was read")
    print(f"{count} packets, both profiles, both directions")


main()
