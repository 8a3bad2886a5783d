#!/usr/bin/env python3
"""Writes the archives that the image cases import: image-archives.py FOLDER. good.tar, plain.*, and hostile/REASON.tar."""
import gzip
import io
import lzma
import os
import struct
import sys
import tarfile

folder = sys.argv[1]
os.makedirs(folder + "/hostile", exist_ok=True)


def entry(name, kind=tarfile.REGTYPE, data=b"", mode=0o644, **more):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(data), mode
    for key, value in more.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def file(name, data=b"x", **more):
    return entry(name, data=data, **more)


def directory(name, mode=0o755, **more):
    return entry(name, tarfile.DIRTYPE, mode=mode, **more)


def symlink(name, target):
    return entry(name, tarfile.SYMTYPE, linkname=target, mode=0o777)


def hardlink(name, target):
    return entry(name, tarfile.LNKTYPE, linkname=target)


def device(name, major, minor, kind=tarfile.CHRTYPE):
    return entry(name, kind, devmajor=major, devminor=minor)


def write(name, entries, form=tarfile.PAX_FORMAT):
    with tarfile.open(f"{folder}/{name}.tar", "w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for info, data in entries:
            tar.addfile(info, data)


# security.capability of `setcap cap_net_raw+ep`: version 2, effective (linux/capability.h).
capability = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)

write("good", [
    directory("./", 0o751, uid=7, gid=8),
    directory("./sticky", 0o1777),
    file("./setuid", b"s" * 10, mode=0o4755, uid=70000, gid=3000000000),
    file("./times", mtime=1234567890.123456789, pax_headers={"mtime": "1234567890.123456789", "atime": "1000000000.5"}),
    file("./future", mtime=4102444800),
    file("./past", pax_headers={"mtime": "-86400"}),
    hardlink("./early", "later"),
    file("./later", b"linked"),
    hardlink("./late", "./later"),
    symlink("./fast", "/absolute/target"),
    symlink("./slow", "t" * 200),
    hardlink("./link-to-link", "fast"),
    device("./console", 5, 1),
    device("./disk", 259, 300000, tarfile.BLKTYPE),
    entry("./fifo", tarfile.FIFOTYPE),
    file("./missing/parents/file", b"deep"),
    file("./twice", b"first"), file("./twice", b"second"),
    directory("./was-dir"), file("./was-dir/gone"), file("./was-dir", b"now a file"),
    file("./was-file"), directory("./was-file"), file("./was-file/inside", b"in"),
    file("./" + "n" * 255, b"long name"),
    file("./F\u0151tan\u00fas\u00edtv\u00e1ny.crt", b"utf-8"),
    file("./xattrs", pax_headers={"SCHILY.xattr.user.colour": "blue", "SCHILY.xattr.user.long": "v" * 1500}),
    file("./ping", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": capability.decode("latin-1")}),
    directory("./acl", pax_headers={
        "SCHILY.acl.access": "user::rwx,user:student:r-x:1234,group::r-x,mask::r-x,other::---",
        "SCHILY.acl.default": "user::rwx,user:student:rwx:1234,group::r-x,mask::rwx,other::---"}),
    file("./large", os.urandom(1 << 20) * 5 + b"end"),
    file("./empty", b""),
] + [directory("./many")] + [file(f"./many/file-with-a-rather-long-name-{i:05d}", b"%d" % i) for i in range(5000)])

write("plain", [file("etc/os-release", b'PRETTY_NAME="Plain 1"\n'), file("sbin/init", mode=0o755)])
with open(f"{folder}/plain.tar", "rb") as f:
    plain = f.read()
with gzip.open(f"{folder}/plain.tar.gz", "wb") as f:
    f.write(plain)
with lzma.open(f"{folder}/plain.tar.xz", "wb") as f:
    f.write(plain)

hostile = {
    "dotdot": [file("../evil")],
    "dotdot-inside": [file("a/../../evil")],
    "absolute": [file("/etc/evil")],
    "absolute-link": [file("a"), hardlink("evil", "/etc/passwd")],
    "dotdot-link": [file("a"), hardlink("evil", "../../etc/passwd")],
    "through-link": [symlink("evil", "/etc"), file("evil/passwd")],
    "through-file": [file("evil"), file("evil/inside")],
    "device-flood": [device(f"evil{i}", 1, 3) for i in range(4097)],
    "device-number": [device("evil", 5000, 1)],
    "newline": [file("evil\nname")],
    "escape": [file("evil\033[31m")],
    "long-name": [file("evil" + "n" * 252)],
    "link-to-nothing": [hardlink("evil", "nothing")],
    "link-to-folder": [directory("a"), hardlink("evil", "a")],
    "link-circle": [hardlink("evil", "evil2"), hardlink("evil2", "evil")],
    "root-link": [symlink(".", "/evil")],
    "owner": [file("evil", uid=1 << 33)],
    "xattr": [file("evil", pax_headers={"SCHILY.xattr.user.big": "v" * 6000})],
    "content": [file("evil", b"\1" * (70 << 20))],
}
for name, entries in hostile.items():
    write("hostile/" + name, entries, tarfile.GNU_FORMAT if name == "device-number" else tarfile.PAX_FORMAT)


def lie(name, size, data):
    info = tarfile.TarInfo("evil")
    info.size = size
    with open(f"{folder}/hostile/{name}.tar", "wb") as out:
        out.write(info.tobuf(tarfile.GNU_FORMAT) + data)


lie("lying-size", 10 << 40, b"x" * 512)
lie("truncated", 1 << 20, b"x" * 5120)


class Zeros:
    """As many bytes as are asked for."""

    def read(self, n):
        return bytes(n)


info = tarfile.TarInfo("evil")
info.size = 60 << 20
with tarfile.open(f"{folder}/hostile/bomb.tar", "w:gz") as tar:
    tar.addfile(info, Zeros())
    info.name = "evil2"
    tar.addfile(info, Zeros())
