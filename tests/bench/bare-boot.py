#!/usr/bin/env python3
"""Boots bare guests side by side, and prints after how many milliseconds the last one showed TEXT on its console.

  bare-boot.py [--idle SECONDS] COUNT TEXT COMMAND...     "{n}" in COMMAND is the guest's number

COMMAND is linux.uml with con0=fd:0,fd:1. --idle: then prints how many context switches a second the first guest's processes
make while nobody does anything. All are killed at the end, as one process group each. Status 1: not within 120 s.
"""
import os, selectors, signal, subprocess, sys, time

LIMIT = 120


def switches(group):
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(pid)) == group:
                for task in os.listdir(f"/proc/{pid}/task"):
                    for line in open(f"/proc/{pid}/task/{task}/status"):
                        if "ctxt_switches" in line:
                            total += int(line.split()[1])
        except (ProcessLookupError, FileNotFoundError):
            pass  # ended meanwhile
    return total


def boot(count, text, command):
    poll, waiting, guests = selectors.DefaultSelector(), {}, []
    for n in range(count):
        p = subprocess.Popen([a.replace("{n}", str(n)) for a in command], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        guests.append(p)
        waiting[p.stdout.fileno()] = b""
        poll.register(p.stdout.fileno(), selectors.EVENT_READ)
    end = time.monotonic() + LIMIT
    while waiting and time.monotonic() < end:
        for key, _ in poll.select(1):
            data = os.read(key.fd, 65536)
            seen = waiting.get(key.fd, b"")[-len(text):] + data
            if not data:
                raise SystemExit("a guest ended")
            if key.fd in waiting:
                waiting[key.fd] = seen
                if text in seen:
                    del waiting[key.fd]  # read on, or the guest would come to a halt
    return guests, not waiting


def main():
    arguments, idle = sys.argv[1:], 0
    if arguments[0] == "--idle":
        idle, arguments = float(arguments[1]), arguments[2:]
    begin, guests = time.monotonic(), []
    try:
        guests, booted = boot(int(arguments[0]), arguments[1].encode(), arguments[2:])
        print(round((time.monotonic() - begin) * 1000))
        if idle:
            time.sleep(3)  # what comes after a login
            before = switches(guests[0].pid)
            time.sleep(idle)
            print(round((switches(guests[0].pid) - before) / idle, 1))
    finally:
        for p in guests:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()
    sys.exit(not booted)


main()
