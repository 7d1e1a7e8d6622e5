"""Writes the packets of a folder again with fastavro, the pictures gzipped, and says how many a second of the processor."""

import copy
import glob
import gzip
import io
import os
import sys
import time

import fastavro

CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")

packets = []
for path in glob.glob(os.path.join(sys.argv[1], "*.avro")):
    with open(path, "rb") as file:
        reader = fastavro.reader(file)
        packets.append(next(reader))
schema = fastavro.parse_schema(copy.deepcopy(reader.writer_schema))
pictures = [[gzip.decompress(packet[name]["stampData"]) for name in CUTOUTS] for packet in packets]

for level in (1, 6):
    begun = time.process_time()
    for packet, stamps in zip(packets, pictures):
        for name, stamp in zip(CUTOUTS, stamps):
            packet[name]["stampData"] = gzip.compress(stamp, level)
        fastavro.writer(io.BytesIO(), schema, [packet], codec="null")
    seconds = time.process_time() - begun
    print(f"alerts/python: fastavro with gzip level {level}: {len(packets) / seconds:.0f} finished alerts a second of the processor, one core")
