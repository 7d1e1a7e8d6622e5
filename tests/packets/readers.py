"""Reads alert packets the way each community reader does, with its rules for rejecting them.

    readers.py accept FOLDER      every packet must pass every reader
    readers.py controls FOLDER    each rule must reject a packet made to break it

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


def own_promises(packet):
    """What Nightjar promises beyond the readers' rules."""
    no_nan(packet)
    c = packet["candidate"]
    for key, value in c.items():
        need(value is not None, "no null inside candidate: " + key)
    need(packet["candid"] == c["candid"], "candid twice")
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
    {"accept": accept, "same_schema": same_schema}[sys.argv[1]](*sys.argv[2:])
