# A server on the host's loopback that takes its time. Prints its port. What it does, the client's first line says:
#   sink N     reads N bytes, stops for two seconds after the first MB, and answers their MD5
#   source N   sends N bytes, and writes their MD5 into the file that is its argument, or "reset" if the other end did that
#   echo       sends back what it reads, and reads nothing while it sends
#   reset      reads 3 MB, and resets the connection
import hashlib
import os
import socket
import socketserver
import struct
import sys
import time


class Peer(socketserver.StreamRequestHandler):
    rbufsize = 0

    def handle(self):
        line = b""
        while not line.endswith(b"\n"):
            line += self.rfile.read(1)
        words = line.split()
        getattr(self, words[0].decode())(*map(int, words[1:]))

    def sink(self, n):
        got, digest = 0, hashlib.md5()
        while got < n:
            data = self.connection.recv(min(65536, n - got))
            if not data:
                break
            if got < 1 << 20 <= got + len(data):
                time.sleep(2)
            got += len(data)
            digest.update(data)
        self.wfile.write(digest.hexdigest().encode() + b"\n")

    def source(self, n):
        data = os.urandom(n)
        with open(sys.argv[1], "w") as f:
            f.write(hashlib.md5(data).hexdigest())
        try:
            self.connection.sendall(data)
        except OSError:
            with open(sys.argv[1], "w") as f:
                f.write("reset")

    def echo(self):
        while data := self.connection.recv(8192):
            self.connection.sendall(data)

    def reset(self):
        got = 0
        while got < 3 << 20:
            got += len(self.connection.recv(65536)) or 3 << 20
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


server = Server(("127.0.0.1", 0), Peer)
print(server.server_address[1], flush=True)
server.serve_forever()
