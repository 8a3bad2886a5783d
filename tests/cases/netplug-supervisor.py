#!/usr/bin/env python3
"""A supervisor as netplug/control.h describes it, in a language of its own so that the protocol is checked from both sides.

Usage: netplug-supervisor.py SOCKET FORWARD...
Listens for the guest, keeps its connection, runs uml-netplug and replaces it when it dies. Prints "plug PID" and "forward SPEC"."""
import array
import os
import select
import signal
import socket
import struct
import subprocess
import sys

MAGIC, VERSION = 0x554E5031, 1
ADD_PORT, CONNECT, FORWARD_ADD, READY, REPLY = 1, 2, 3, 128, 129
HEADER = struct.Struct("=IHHII")
CONFIG = struct.Struct("=II6sBBB3xI64s512s4sI4s4s4s64s128s256s")


class Plug:
    def __init__(self):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(10)
        self.process = subprocess.Popen(["uml-netplug", "--control-fd", str(theirs.fileno())], pass_fds=[theirs.fileno()])
        theirs.close()
        self.sequence = 0
        assert self.receive() == (READY, 0, b"")
        print("plug", self.process.pid, flush=True)

    def receive(self):
        data = self.control.recv(4096)
        magic, version, kind, sequence, length = HEADER.unpack_from(data)
        assert (magic, version, length) == (MAGIC, VERSION, len(data) - HEADER.size)
        return kind, sequence, data[HEADER.size:]

    def request(self, kind, payload, fds=()):
        self.sequence += 1
        data = HEADER.pack(MAGIC, VERSION, kind, self.sequence, len(payload)) + payload
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.control.sendmsg([data], rights)
        answer, sequence, payload = self.receive()
        status, text = struct.unpack("=i1020s", payload)
        text = text.split(b"\0")[0].decode()
        assert (answer, sequence) == (REPLY, self.sequence)
        if status:
            sys.exit("plug refused: " + text)
        return text


def start(forwards, connection):
    plug = Plug()
    ip = socket.inet_aton
    plug.request(ADD_PORT, CONFIG.pack(0, 1, bytes(6), 1, 0, 1, 16384, b"", b"", ip("10.0.2.0"), 24, ip("10.0.2.2"),
                                       ip("10.0.2.3"), ip("10.0.2.15"), b"guest-1", b"", b""))
    full = [plug.request(FORWARD_ADD, struct.pack("=I128s", 0, f.encode())) for f in forwards]
    if connection:
        plug.request(CONNECT, struct.pack("=I", 0), [connection.fileno()])
    return plug, full


def serve(listener, forwards):
    connection = None
    plug, forwards = start(forwards, None)
    for f in forwards:
        print("forward", f, flush=True)
    while True:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(plug.control, select.POLLIN)
        if connection:
            poll.register(connection, 0)    # frames are the plug's: only the end
        ready = dict(poll.poll())
        if connection and connection.fileno() in ready:
            connection.close()
            connection = None
        if listener.fileno() in ready:
            if connection:
                connection.close()
            connection = listener.accept()[0]
            try:
                plug.request(CONNECT, struct.pack("=I", 0), [connection.fileno()])
            except OSError:
                pass    # it has just died: replayed below
        if plug.control.fileno() in ready or plug.process.poll() is not None:
            plug.control.close()
            plug.process.wait()
            plug, forwards = start(forwards, connection)


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.bind(sys.argv[1])
server.listen()
serve(server, sys.argv[2:])
