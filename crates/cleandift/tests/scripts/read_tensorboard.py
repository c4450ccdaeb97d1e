"""Reads an event file of `train::log` with TensorBoard's own reader and prints what it finds.

    python read_tensorboard.py RUN

Needs the package `tensorboard` (2.20 was used); TensorFlow is not needed. Checksums are checked
here, because the reader without TensorFlow does not: the sum is computed from its definition.
"""

import glob
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc):
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


for path in sorted(glob.glob(f"{sys.argv[1]}/events.out.tfevents.*")):
    data, at, records = open(path, "rb").read(), 0, 0
    while at < len(data):
        length, check = struct.unpack_from("<QI", data, at)
        body = data[at + 12 : at + 12 + length]
        (body_check,) = struct.unpack_from("<I", data, at + 12 + length)
        assert check == masked(crc32c(data[at : at + 8])) and body_check == masked(crc32c(body))
        at, records = at + 16 + length, records + 1
    print(f"{path}: {records} records, checksums right")

board = EventAccumulator(sys.argv[1])
board.Reload()
for tag in board.Tags()["scalars"]:
    points = [(event.step, round(event.value, 6)) for event in board.Scalars(tag)]
    print(tag, len(points), points[:3], "...", points[-3:])
