"""Makes submissions, good and hostile ones: submission-forge.py KIND|all BASE-IMAGE FILE|FOLDER. The format as uml-lab-submission(5) has it,
written here once more, so that reader and writer are not judged by each other."""
import copy
import hashlib
import json
import struct
import subprocess
import sys

kind, base, out = sys.argv[1:4]
CHUNK = 1 << 20


def digest(data):
    state = bytes(64)
    for i in range(0, len(data), CHUNK):
        chunk = data[i:i + CHUNK]
        if chunk.strip(b"\0"):
            state = hashlib.sha512(state + struct.pack(">Q", i // CHUNK) + hashlib.sha512(chunk).digest()).digest()
    return "sha512-1M:" + hashlib.sha512(state + struct.pack(">Q", len(data)) + bytes(64)).hexdigest()


def header(size, backing=b"detached", version=3, alignment=4096):
    if version == 2:
        return struct.pack(">II4096sIQI", 0x4f4f4f4d, 2, backing, 0, size, 512)
    return struct.pack(">IIIQIII4096s", 0x4f4f4f4d, version, 0, size, 512, alignment, 0, backing)


def overlay(size, backing=b"detached", **kw):
    """The first sector of the disk is ours: "handed in"."""
    bitmap = (size + 4095) // 4096
    data = (8192 + bitmap + 4095) // 4096 * 4096
    b = bytearray(data + size)
    h = header(size, backing, **kw)
    b[:len(h)] = h
    b[8192] = 1
    b[data:data + 9] = b"handed in"
    return bytes(b)


def member(name, data, typeflag=b"0", link=b"", size=None, mode=0o600, dev=(0, 0)):
    """A ustar header, and content."""
    h = struct.pack("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x", name.encode(), b"%07o" % mode, b"0000000", b"0000000",
                    b"%011o" % (len(data) if size is None else size), b"00000000000", b" " * 8, typeflag, link, b"ustar\00000",
                    b"", b"", b"%07o" % dev[0], b"%07o" % dev[1], b"")
    h = h[:148] + b"%06o\0 " % sum(h) + h[156:]
    return h + data + bytes(-len(data) % 512)


def pax(records):
    body = b""
    for k, v in records:
        line = b" %s=%s\n" % (k.encode(), str(v).encode())
        n = len(line)
        while len(str(n)) + len(line) != n:
            n = len(str(n)) + len(line)
        body += str(n).encode() + line
    return member("PaxHeaders/x", body, b"x")


def sparse(name, real, runs, content):
    """GNU's sparse format 1.0: the map stands before the content."""
    m = b"%d\n" % len(runs) + b"".join(b"%d\n%d\n" % r for r in runs)
    m += bytes(-len(m) % 512)
    return pax([("GNU.sparse.major", 1), ("GNU.sparse.minor", 0), ("GNU.sparse.name", name), ("GNU.sparse.realsize", real)]) + \
        member("GNUSparseFile.0/x", m + content)


image = open(base, "rb").read()
disk = overlay(len(image))
extra = b"\0" * 8192 + b"extra" + b"\0" * 4091
lab_yml = """lab: forged
base: forged
machines:
  m: {memory: 64M, disks: [{size: 1M}]}
checks:
  - {name: true, machine: m, run: "true"}
"""
manifest = {
    "format": "uml-lab-submission", "version": 1, "lab": "forged", "lab_digest": None, "student": "mallory", "session": "forged",
    "time": "2026-11-23T00:00:00+0000", "seed": "00", "running": False, "params": [], "check": None,
    "machines": [{"name": "m", "set_up": True, "base": {"name": "forged", "size": len(image), "digest": digest(image)}, "disks": [
        {"file": "m/root.cow", "size": len(disk), "digest": digest(disk)},
        {"file": "m/disk1.img", "size": len(extra), "digest": digest(extra)}]}]}


def archive(m=manifest, lab=lab_yml, disks=None, more=b"", text=None):
    text = json.dumps(m).encode() if text is None else text
    if disks is None:
        disks = member("m/root.cow", disk) + member("m/disk1.img", extra)
    return member("manifest.json", text) + member("lab.yml", lab.encode()) + disks + more + bytes(1024)


def changed(path, value):
    m = copy.deepcopy(manifest)
    at = m
    for k in path[:-1]:
        at = at[k]
    at[path[-1]] = value
    return m


def with_disk(data, index=0):
    """Another content for a disk, with its right size and digest."""
    m = copy.deepcopy(manifest)
    m["machines"][0]["disks"][index].update(size=len(data), digest=digest(data))
    names = ["m/root.cow", "m/disk1.img"]
    parts = [disk, extra]
    parts[index] = data
    return archive(m, disks=b"".join(member(n, d) for n, d in zip(names, parts)))


def one(name, data, **kw):
    return archive(disks=member(name, data, **kw) + member("m/disk1.img", extra))


def bomb():
    """A hundred megabytes that take a few kilobytes, under the name of a disk of that size."""
    data = b"\1" * (100 << 20)
    m = changed(("machines", 0, "disks", 0, "size"), len(data))
    return archive(m, disks=member("m/root.cow", data) + member("m/disk1.img", extra))


HARMFUL = """lab: forged
base: forged
networks:
  out: {vde: "udp://1234:127.0.0.1:4321"}
shares:
  home: {path: "~/secret", mode: rw}
machines:
  m:
    memory: 8G
    kernel: /bin/true
    kernel_args: [panic=7]
    restart: always
    shares: [home]
    files: /etc
    disks: [{size: 1M}]
    interfaces:
      - {slirp: true, host: true, forward: ["2222:22"]}
      - {slirp: true, allow: ["1.2.3.4"], restrict: true}
      - {network: out}
limits: {memory: 100G, disk: 100G, time: 9d}
"""
big = 1 << 62
kinds = {
    "good": archive,
    "holes": lambda: archive(disks=sparse("m/root.cow", len(disk), [(0, 12288), (len(disk), 0)],
                                          disk[:12288]) + member("m/disk1.img", extra)) if disk[12288:].strip(b"\0") == b"" else
    archive(disks=sparse("m/root.cow", len(disk), [(0, 16384), (len(disk), 0)], disk[:16384]) + member("m/disk1.img", extra)),
    "harmful-lab": lambda: archive(lab=HARMFUL),
    "no-lab": lambda: archive(lab="lab: other\nbase: forged\nmachines:\n  m: {memory: 64M, disks: [{size: 1M}]}\n"),
    "dotdot": lambda: one("../root.cow", disk),
    "absolute": lambda: one("/tmp/root.cow", disk),
    "dotslash": lambda: one("./m/root.cow", disk),
    "symlink": lambda: one("m/root.cow", b"", typeflag=b"2", link=b"/etc/shadow"),
    "hardlink": lambda: one("m/root.cow", b"", typeflag=b"1", link=b"manifest.json"),
    "device": lambda: one("m/root.cow", b"", typeflag=b"4", dev=(8, 0)),
    "fifo": lambda: one("m/root.cow", b"", typeflag=b"6"),
    "folder": lambda: one("m/root.cow", b"", typeflag=b"5"),
    "more": lambda: archive(more=member("m/root-3.cow", disk)),
    "fewer": lambda: archive(disks=member("m/root.cow", disk)),
    "order": lambda: archive(disks=member("m/disk1.img", extra) + member("m/root.cow", disk)),
    "no-manifest": lambda: member("lab.yml", lab_yml.encode()) + bytes(1024),
    "big-manifest": lambda: archive(text=b" " * (2 << 20)),
    "no-json": lambda: archive(text=b"{"),
    "deep-json": lambda: archive(text=b"[" * 100000),
    "zero-byte": lambda: archive(text=json.dumps(manifest).encode() + b"\0"),
    "version": lambda: archive(changed(("version",), 2)),
    "unknown-key": lambda: archive(changed(("hook",), "rm -rf /")),
    "twice": lambda: archive(text=json.dumps(manifest).encode().replace(b'"seed"', b'"lab": "x", "seed"')),
    "escape": lambda: archive(changed(("student",), "\x1b]0;owned\x07")),
    "long": lambda: archive(changed(("student",), "x" * 100000)),
    "machine-name": lambda: archive(changed(("machines", 0, "name"), "../../x")),
    "two-machines": lambda: archive(changed(("machines",), manifest["machines"] * 2)),
    "many-machines": lambda: archive(changed(("machines",), manifest["machines"] * 1000)),
    "no-digest": lambda: archive(changed(("machines", 0, "disks", 0, "digest"), "sha512-1M:00")),
    "params": lambda: archive(changed(("params",), ["x"])),
    "huge": lambda: archive(changed(("machines", 0, "disks", 0, "size"), big),
                            disks=sparse("m/root.cow", big, [(big, 0)], b"") + member("m/disk1.img", extra)),
    "terabyte": lambda: archive(changed(("machines", 0, "disks", 1, "size"), 1 << 40),
                                disks=member("m/root.cow", disk) + sparse("m/disk1.img", 1 << 40, [(1 << 40, 0)], b"")),
    "outside": lambda: archive(disks=sparse("m/root.cow", len(disk), [(len(disk) + 4096, 4096)], b"x" * 4096) + member("m/disk1.img", extra)),
    "backwards": lambda: archive(disks=sparse("m/root.cow", len(disk), [(8192, 4096), (0, 4096)], b"x" * 8192) + member("m/disk1.img", extra)),
    "digest": lambda: archive(disks=member("m/root.cow", disk[:-1] + b"x") + member("m/disk1.img", extra)),
    "shadow": lambda: with_disk(overlay(len(image), b"/etc/shadow")),
    "relative": lambda: with_disk(overlay(len(image), b"../../../images/secret.img")),
    "old-header": lambda: with_disk(overlay(len(image), version=2)),
    "other-size": lambda: with_disk(overlay(len(image) * 2)),
    "no-overlay": lambda: with_disk(b"\0" * len(disk)),
    "extra-is-cow": lambda: with_disk(header(4096, b"/etc/shadow") + bytes(8192 + 4096 + 4096 - 4128), 1),
    "other-base": lambda: archive(changed(("machines", 0, "base", "digest"), "sha512-1M:" + "ab" * 64)),
    "bomb": bomb,
}
kinds["window"] = lambda: archive(more=b"\0" * (300 << 20))  # and a window as large as can be
for name in kinds if kind == "all" else [kind]:
    path = out + "/" + name if kind == "all" else out
    subprocess.run(["zstd", "-q", "-f", "-1", "-o", path, *(["--long=31", "--ultra"] if name == "window" else [])],
                   input=kinds[name](), check=True)
