#!/usr/bin/env python3
"""Writes the golden files: one COW file of each version, from the structs of arch/um/drivers/cow_user.c.

    golden.py FOLDER

Independent of libcow on purpose. Each is an overlay over "base.img" (41 sectors, byte = 0x80 + sector, mtime
1000000000) that owns sectors 1, 3, 8 and 39 (byte = sector). The files in corpus/ were made by it; they are the
fuzzer's first corpus too. base.img itself is not kept: its time would not be.
"""
import struct
import sys

SECTORS, OWNED, MTIME, PATH = 41, (1, 3, 8, 39), 1000000000, b"base.img"
SIZE = SECTORS * 512
MAGIC = 0x4F4F4F4D


def round_up(x, to):
    return (x + to - 1) // to * to


def old_places(header):  # cow_sizes(), version < 3: the bitmap forgets sector 40
    length = (SIZE + 511) // (8 * 512)
    return len(header), length, round_up(len(header) + length, 512)


def v3_places(header):
    at, length = round_up(len(header), 4096), (SECTORS + 7) // 8
    return at, length, round_up(at + length, 4096)


def write(path, header, places):
    at, length, data = places
    out = bytearray(data + SIZE)
    out[: len(header)] = header
    for s in OWNED:
        out[at + s // 8] |= 1 << s % 8
        out[data + s * 512 : data + (s + 1) * 512] = bytes([s]) * 512
    with open(path, "wb") as f:
        f.write(out)


folder = sys.argv[1]
for name, order in (("v1-le", "<"), ("v1-be", ">")):
    h = struct.pack(order + "ii256sIQi", MAGIC, 1, PATH, MTIME, SIZE, 512)
    write(f"{folder}/{name}.cow", h, old_places(h))
h = struct.pack(">II4096sIQi", MAGIC, 2, PATH, MTIME, SIZE, 512)
write(f"{folder}/v2.cow", h, old_places(h))
h = struct.pack(">IIIQIII4096s", MAGIC, 3, MTIME, SIZE, 512, 4096, 0, PATH)
write(f"{folder}/v3.cow", h, v3_places(h))
# the 64-bit layout: be32 of the time in the first half of an s64, four bytes of padding at the end
h = struct.pack(">IIIIQIII4096sI", MAGIC, 3, MTIME, 0, SIZE, 512, 4096, 0, PATH, 0)
write(f"{folder}/v3-broken.cow", h, v3_places(h))
