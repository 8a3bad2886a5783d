# tests/boot/disk-live.sh's supervisor: starts the disk server with a control socket (cow/serve.h) and a guest, and changes disks
# while the guest writes: snapshots, merges, a disk put in and taken out.
#   disk-live.py KERNEL INITRD FOLDER
import os
import re
import socket
import struct
import subprocess
import sys
import time

kernel, initrd, folder = sys.argv[1:]
os.chdir(folder)
SNAPSHOT, MERGE, INSERT, EJECT, GET_STATS, READY, REPLY, STATS = 1, 2, 3, 4, 5, 128, 129, 130
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours.settimeout(60)
sequence = 0


def receive():
    data = ours.recv(8192)
    magic, _, kind, number, length = struct.unpack('<IHHII', data[:16])
    assert magic == 0x55435331 and length == len(data) - 16
    return kind, number, data[16:]


def ask(kind, disk, path=None):
    """The answer's payload; a request that fails ends the test."""
    global sequence
    sequence += 1
    payload = struct.pack('<I', disk) + (os.path.join(folder, path).encode().ljust(4096, b'\0') if path else b'')
    ours.send(struct.pack('<IHHII', 0x55435331, 1, kind, sequence, len(payload)) + payload)
    answer, number, data = receive()
    assert number == sequence
    if answer == REPLY:
        status, micros = struct.unpack('<iI', data[:8])
        if status:
            sys.exit('request %d of disk %d: %s' % (kind, disk, data[8:].split(b'\0')[0].decode()))
        return micros
    return data


def requests():
    """Requests that the first disk has dealt with so far."""
    return struct.unpack('<5Q', ask(GET_STATS, 0)[8:48])[3]


server = subprocess.Popen(['uml-cow', 'serve', '--control-fd', str(theirs.fileno()), '--socket', 's0', 'top', '--socket', 's1', '-'],
                          pass_fds=[theirs.fileno()])
theirs.close()
assert receive()[0] == READY
guest = subprocess.Popen(
    ['timeout', '-k', '5', '60', 'setarch', '-R', kernel, 'mem=128M', 'initrd=' + initrd, 'con=null', 'con0=null,fd:1', 'console=tty0',
     'ssl=null', 'quiet', 'noreboot', 'initcall_blacklist=raid6_select_algo,raid6_init',
     'virtio_uml.device=%s/s0:2' % folder, 'virtio_uml.device=%s/s1:2' % folder],
    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
log = []


def wait_for(text):
    """Reads the guest's console up to a line that has the text."""
    for line in guest.stdout:
        log.append(line.decode(errors='replace').rstrip())
        if re.search(text, log[-1]):
            return
    sys.exit('the guest ended without saying "%s":\n%s' % (text, '\n'.join(log[-20:])))


wait_for('^writing')
pauses = [ask(SNAPSHOT, 0, 'top2')]
before = requests()
while requests() < before + 50: # the guest goes on
    time.sleep(0.02)
pauses += [ask(SNAPSHOT, 0, 'top3'), ask(SNAPSHOT, 0, 'top4')]
ask(INSERT, 1, 'extra')
wait_for('^found the second disk')
ask(MERGE, 0, 'top2') # a layer into a layer
os.unlink('top2')
ask(MERGE, 0, 'top3') # the layer below the top, into it
os.unlink('top3')
wait_for('^wrote the second disk')
ask(EJECT, 1)
wait_for('^lost the second disk')
wait_for('^all is as written')
guest.wait()
ours.close()
if server.wait(30):
    sys.exit('the server ended with %d' % server.returncode)
print('pauses: ' + ', '.join('%.1f ms' % (p / 1000) for p in pauses))
if max(pauses) > 1000000:
    sys.exit('a snapshot stopped the guest for more than a second')
