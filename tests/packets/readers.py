"""Reads alert packets the way each community reader does, with its rules for rejecting them.

    readers.py accept FOLDER      every packet must pass every reader
    readers.py controls FOLDER    each rule must reject a packet made to break it
    readers.py registry FOLDER    Confluent's deserializer must read every message
    readers.py same_schema A B    two packets must have the same writer schema

The rules are those of the readers' own ingest code: Fink (fink-broker), Lasair (lasair-lsst and
lasair4 ingest), ALeRCE (pipeline, ztf parser), AMPEL (ampel-ztf DecentFilter), BOOM (boom, ztf
alert worker), Kowalski (alert_broker_ztf).
"""

import copy
import glob
import gzip
import io
import json
import math
import os
import re
import sys

import fastavro
import numpy as np
from astropy.io import fits

CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")


class Rejected(Exception):
    """A reader does not take the packet."""


def need(condition, why):
    if not condition:
        raise Rejected(why)


def decode(raw):
    """The one record of an object container file, with its writer schema."""
    reader = fastavro.reader(io.BytesIO(raw))
    records = list(reader)
    need(len(records) == 1, "one record")
    return records[0], reader.writer_schema


def picture(packet, name):
    stamp = packet[name]["stampData"]
    need(stamp[:2] == b"\x1f\x8b", "gzip")
    hdus = fits.open(io.BytesIO(gzip.decompress(stamp)))
    need(len(hdus) == 1, "a single header")
    return hdus[0]


def no_nan(value, path=""):
    if isinstance(value, dict):
        for key, item in value.items():
            no_nan(item, path + "." + key)
    elif isinstance(value, list):
        for item in value:
            no_nan(item, path + "[]")
    elif isinstance(value, float):
        need(math.isfinite(value), "no NaN: " + path)


def fink(raw, packet):
    need(raw[:4] == b"Obj\x01", "an object container file")
    c = packet["candidate"]
    need(c["nbad"] == 0, "nbad")
    need(c["rb"] >= 0.55, "rb")
    need(c["fid"] != 3, "fid")
    for key in ("ndethist", "sgscore1", "distpsnr1", "ssdistnr", "jdstarthist"):
        need(c[key] is not None, key)


def lasair(raw, packet):
    need(raw[:4] == b"Obj\x01", "an object container file")
    for name in CUTOUTS:
        need(packet[name] is not None, name)
        need(packet[name]["stampData"][:2] == b"\x1f\x8b", "gzip")
    need(isinstance(packet["candid"], int), "candid")
    for past in packet["prv_candidates"] or []:
        if past["candid"] is None:
            for key in ("jd", "fid", "diffmaglim", "nid", "field", "magzpsci", "magzpsciunc", "magzpscirms"):
                need(past.get(key) is not None, "non-detection without " + key)
    no_nan(packet)


def alerce(raw, packet, v4_keys):
    for key in ("prv_candidates", "fp_hists"):
        need(key in packet, key)
    need(list(packet["candidate"]) == v4_keys, "exactly the v4 candidate keys")
    need(packet["candidate"]["fid"] in (1, 2, 3), "fid")
    need(re.fullmatch(r"[A-Z]{3}\d{2}[a-z]{7}", packet["objectId"]), "objectId")


def ampel(raw, packet):
    c = packet["candidate"]
    need(c["programid"] in (0, 1, 2, 3), "programid")
    need(c["fid"] in (1, 2, 3), "fid")
    need(17 <= int(packet["objectId"][3:5]) <= 32, "year of objectId")
    for key in (
        "fwhm elong magdiff nbad distpsnr1 distpsnr2 distpsnr3 sgscore1 sgscore2 sgscore3 "
        "isdiffpos ra dec rb ssdistnr"
    ).split():
        need(c[key] is not None, key)


def boom(raw, packet):
    need(raw[:4] == b"Obj\x01", "Obj\\x01")
    need(packet["fp_hists"] is not None, "fp_hists")
    need(packet["prv_candidates"] is not None, "prv_candidates")
    for name in CUTOUTS:
        hdu = picture(packet, name)
        rows, columns = hdu.data.shape
        need(rows <= 63 and columns <= 63, "at most 63 x 63")
        need(hdu.data.dtype == np.dtype(">f4"), "float32")
        header = gzip.decompress(packet[name]["stampData"])
        need(len(header) == 2880 + -(-rows * columns * 4 // 2880) * 2880, "one block of header")
    for past in packet["prv_candidates"]:
        need(past["candid"] is not None or past["diffmaglim"] is not None, "diffmaglim")


def kowalski(raw, packet, seen):
    c = packet["candidate"]
    need(0 <= c["ra"] < 360 and -90 <= c["dec"] <= 90, "ra, dec")
    for name in CUTOUTS:
        picture(packet, name)
    need(packet["candid"] not in seen, "candid is not new")
    seen.add(packet["candid"])


def readers(v4_keys):
    seen = set()
    return {
        "fink": fink,
        "lasair": lasair,
        "alerce": lambda raw, packet: alerce(raw, packet, v4_keys),
        "ampel": ampel,
        "boom": boom,
        "kowalski": lambda raw, packet: kowalski(raw, packet, seen),
    }


def own_promises(packet, nulls=False):
    """What Nightjar promises beyond the readers' rules; `nulls`: absent values are nulls."""
    no_nan(packet)
    c = packet["candidate"]
    for key, value in c.items() if not nulls else ():
        need(value is not None, "no null inside candidate: " + key)
    need(packet["candid"] == c["candid"], "candid twice")
    relations = {
        "magdiff": c["magap"] - c["magpsf"],
        "magfromlim": c["diffmaglim"] - c["magap"],
        "dsdiff": c["dsnrms"] - c["ssnrms"],
        "elong": c["aimage"] / c["bimage"],
        "aimagerat": c["aimage"] / c["fwhm"],
        "bimagerat": c["bimage"] / c["fwhm"],
        "mindtoedge": min(c["xpos"], c["ypos"], 3073 - c["xpos"], 3081 - c["ypos"]),
    }
    for key, value in relations.items():
        need(abs(c[key] - value) < 1e-3, f"{key} is {c[key]}, not {value}")
    need(c["jdstarthist"] <= c["jdendhist"] == c["jd"], "jdstarthist, jdendhist")
    need(c["ndethist"] <= c["ncovhist"], "ndethist, ncovhist")
    earlier = [p["jd"] for p in packet["prv_candidates"]]
    need(earlier == sorted(earlier) and all(jd < c["jd"] for jd in earlier), "prv_candidates, oldest first")
    need(sum(p["candid"] is not None for p in packet["prv_candidates"]) == c["ndethist"] - 1, "ndethist")
    need(len(packet["prv_candidates"]) == c["ncovhist"] - 1, "ncovhist")
    difference = picture(packet, "cutoutDifference").data
    need(difference[31, 31] > 0, "the difference is positive at the source")
    total = disc_sum(difference, c["xpos"], c["ypos"], 9.0)
    need(abs(c["magzpsci"] - 2.5 * math.log10(total) - c["magapbig"]) < 0.02, "the picture's sum is magapbig")
    header = picture(packet, "cutoutScience").header
    from astropy.wcs import WCS

    ra, dec = WCS(header).wcs_pix2world([[32 + c["xpos"] - round(c["xpos"]), 32 + c["ypos"] - round(c["ypos"])]], 1)[0]
    off = math.hypot((ra - c["ra"]) * math.cos(math.radians(dec)), dec - c["dec"]) * 3600
    need(off < 0.01, f"the picture's world coordinates are {off} arcsec off")


def disc_sum(image, x, y, radius):
    """Sum in a disc about the source, pixels split into 10 x 10."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    dx, dy = x - round(x), y - round(y)
    part = np.zeros(image.shape)
    for i in (np.arange(10) - 4.5) / 10:
        for j in (np.arange(10) - 4.5) / 10:
            part += np.hypot(columns + i - 31 - dx, rows + j - 31 - dy) < radius
    return float(np.nansum(image * part / 100))


def packets(folder):
    for path in sorted(glob.glob(os.path.join(folder, "*.avro"))):
        with open(path, "rb") as file:
            yield file.read()


def accept(folder):
    v4_keys = json.load(open(os.path.join(os.path.dirname(__file__), "v4_candidate_keys.json")))
    checks = readers(v4_keys)
    count = 0
    for raw in packets(folder):
        packet, _ = decode(raw)
        for name, check in checks.items():
            try:
                check(raw, packet)
            except Rejected as why:
                sys.exit(f"{name} rejects {packet['candid']}: {why}")
        try:
            own_promises(packet)
        except Rejected as why:
            sys.exit(f"{packet['candid']}: {why}")
        count += 1
    print(f"{count} packets, {len(checks)} readers")


def encode(packet, schema):
    out = io.BytesIO()
    fastavro.writer(out, schema, [packet], codec="null")
    return out.getvalue()


def schema_without(schema, record, field):
    """The schema in which `record` lacks `field`."""
    schema = copy.deepcopy(schema)

    def walk(node):
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            if node.get("type") == "record" and node["name"].split(".")[-1] == record:
                node["fields"] = [f for f in node["fields"] if f["name"] != field]
            for key in ("type", "items", "fields"):
                if isinstance(node.get(key), (list, dict)):
                    walk(node[key])

    walk(schema)
    return fastavro.parse_schema(schema)


def stamp(shape, dtype=">f4", extensions=0):
    hdus = [fits.PrimaryHDU(np.zeros(shape, dtype))] + [fits.ImageHDU(np.zeros((2, 2), ">f4"))] * extensions
    out = io.BytesIO()
    fits.HDUList(hdus).writeto(out)
    return gzip.compress(out.getvalue())


def controls(folder):
    raw, packet, schema = next(
        (raw, *decode(raw)) for raw in packets(folder) if any(p["candid"] is None for p in decode(raw)[0]["prv_candidates"])
    )
    v4_keys = list(packet["candidate"])

    def candidate(**values):
        return lambda p: p["candidate"].update(values)

    def limit(**values):
        return lambda p: next(q for q in p["prv_candidates"] if q["candid"] is None).update(values)

    def cutout(name, data):
        return lambda p: p[name].update(stampData=data)

    def top(**values):
        return lambda p: p.update(values)

    unpacked = gzip.decompress(packet["cutoutScience"]["stampData"])
    changes = [
        ("fink", candidate(nbad=1)),
        ("fink", candidate(rb=0.54)),
        ("fink", candidate(fid=3)),
        *(("fink", candidate(**{key: None})) for key in ("sgscore1", "distpsnr1", "ssdistnr", "jdstarthist")),
        *(("lasair", top(**{name: None})) for name in CUTOUTS),
        ("lasair", cutout("cutoutScience", unpacked)),
        *(
            ("lasair", limit(**{key: None}))
            for key in ("diffmaglim", "nid", "field", "magzpsci", "magzpsciunc", "magzpscirms")
        ),
        ("lasair", candidate(sky=float("nan"))),
        ("lasair", limit(magzpsci=float("nan"))),
        ("alerce", candidate(fid=4)),
        ("alerce", top(objectId="ZTF26ABCDEFG")),
        ("ampel", candidate(programid=4)),
        ("ampel", candidate(fid=10)),
        ("ampel", top(objectId="NJR16aaaaaaa")),
        *(
            ("ampel", candidate(**{key: None}))
            for key in "fwhm elong magdiff nbad distpsnr1 distpsnr2 distpsnr3 sgscore1 sgscore2 sgscore3 rb ssdistnr".split()
        ),
        ("boom", top(fp_hists=None)),
        ("boom", top(prv_candidates=None)),
        ("boom", cutout("cutoutDifference", stamp((64, 63)))),
        ("boom", cutout("cutoutDifference", stamp((63, 63), ">f8"))),
        ("boom", cutout("cutoutTemplate", stamp((63, 63), extensions=1))),
        ("boom", limit(diffmaglim=None)),
        ("kowalski", candidate(ra=-999.0)),
        ("kowalski", cutout("cutoutScience", unpacked)),
    ]
    broken = [(reader, *apply(packet, schema, change)) for reader, change in changes]
    for record, field in (("alert", "fp_hists"), ("alert", "prv_candidates"), ("candidate", "drb")):
        without = schema_without(schema, record, field)
        broken.append(("alerce", *decode_again(encode(packet, without))))
    extra = copy.deepcopy(schema)
    next(f for f in extra["fields"] if f["name"] == "candidate")["type"]["fields"].append(
        {"name": "latency", "type": "float", "default": 0.0}
    )
    broken.append(("alerce", *decode_again(encode(packet, fastavro.parse_schema(extra)))))
    for i, (reader, control, decoded) in enumerate(broken):
        checks = readers(v4_keys)
        checks[reader](raw, packet)
        if reader == "kowalski":
            checks = readers(v4_keys)
        try:
            checks[reader](control, decoded)
        except Rejected:
            continue
        sys.exit(f"{reader} takes control {i}, which was made to be rejected")
    checks = readers(v4_keys)
    checks["kowalski"](raw, packet)
    for reader, bytes_ in (("kowalski", raw), ("boom", b"\0\0\0\0\1" + raw), ("fink", raw[4:]), ("lasair", raw[4:])):
        try:
            checks[reader](bytes_, packet)
        except Rejected:
            continue
        sys.exit(f"{reader} takes framing that was made to be rejected")
    two = io.BytesIO()
    fastavro.writer(two, schema, [packet, packet])
    try:
        decode(two.getvalue())
        sys.exit("two records in one message pass")
    except Rejected:
        pass
    print(f"{len(broken) + 5} controls: every rule rejects its control")


def apply(packet, schema, change):
    """The packet with a change, written and read again where the schema can hold it."""
    changed = copy.deepcopy(packet)
    change(changed)
    return encode(changed, schema), changed


def decode_again(raw):
    return raw, decode(raw)[0]


def registry(folder):
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    client = SchemaRegistryClient.new_client({"url": "mock://"})
    with open(os.path.join(folder, "schema.json")) as file:
        number = client.register_schema("alerts-value", Schema(file.read(), "AVRO"))
    deserialize = AvroDeserializer(client)
    count = 0
    for raw in packets(folder):
        if int.from_bytes(raw[1:5], "big") != number:
            sys.exit("another schema number than the registry's")
        packet = deserialize(raw, SerializationContext("alerts", MessageField.VALUE))
        try:
            own_promises(packet, nulls=True)
        except Rejected as why:
            sys.exit(f"{packet['candid']}: {why}")
        c = packet["candidate"]
        if any(c[key] is not None for key in ("ssdistnr", "sgscore1", "drb", "neargaia", "ssnamenr")):
            sys.exit("a sentinel where there should be a null")
        count += 1
    print(f"{count} messages")


def same_schema(ours, theirs):
    """Names, order, types, unions and defaults of our packet are those of a real one."""

    def shape(node):
        if isinstance(node, list):
            return [shape(item) for item in node]
        if not isinstance(node, dict):
            return node
        if node["type"] == "record":
            fields = [(f["name"], shape(f["type"]), "default" in f, f.get("default")) for f in node["fields"]]
            return ("record", node.get("namespace"), node["name"], node.get("version"), fields)
        return tuple((key, shape(value)) for key, value in sorted(node.items()) if key != "doc")

    def schema(path):
        with open(path, "rb") as file:
            metadata = fastavro.reader(file).metadata
        if metadata.get("avro.codec", "null") != "null":
            sys.exit(f"{path}: codec {metadata['avro.codec']}")
        return shape(json.loads(metadata["avro.schema"]))

    def differences(a, b, path=""):
        if type(a) is not type(b) or not isinstance(a, (list, tuple)) or len(a) != len(b):
            if a != b:
                yield f"{path}: {str(a)[:200]} is not {str(b)[:200]}"
            return
        for i, (x, y) in enumerate(zip(a, b)):
            yield from differences(x, y, f"{path}/{x[0] if isinstance(x, (list, tuple)) and x and isinstance(x[0], str) else i}")

    found = list(differences(schema(ours), schema(theirs)))
    if found:
        sys.exit("\n".join(found))
    print("the same schema")


if __name__ == "__main__":
    commands = {"accept": accept, "controls": controls, "registry": registry, "same_schema": same_schema}
    commands[sys.argv[1]](*sys.argv[2:])
