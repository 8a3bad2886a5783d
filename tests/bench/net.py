"""The contenders of net.sh, and their table: net.py FOLDER ROUNDS MS TESTS/KERNELS

Each boot of a guest runs all measurements, one after the other, and says on its console when one begins and ends; then the CPU time of
all processes that take part is read: guests, what is between them, and the server on the host.
"""
import glob, os, shutil, signal, socket, statistics, subprocess, sys, time

FOLDER, ROUNDS, MS, KERNELS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
PLACED = os.environ.get("PLACED", "yes")
BOOT_SECONDS = 40  # until the end of everything a guest does, besides the measurements
TICK = os.sysconf("SC_CLK_TCK")
# "itself": the small packets of a guest to itself: no device, nobody else; what its own kernel can do at most.
MEASURES = [("out", "send $PEER", 1), ("in", "recv $PEER", 1), ("out 4", "send $PEER", 4), ("in 4", "recv $PEER", 4),
            ("small", "small $PEER", 0), ("itself", "small 127.0.0.1", 0)]
SLIRP_MTU, VIRTIO_MTU, PASST_MTU = 16384, 65521, 65520  # uml-netplug: NETPLUG_DEFAULT_MTU, NETPLUG_VIRTIO_MTU
MAC = "52:54:00:00:00:0%d"


def uml_kernels():
    """Version to (path, folder of modules)."""
    debian = sorted(glob.glob("/usr/lib/uml/modules/6.1*"))  # of the package user-mode-linux
    found = {"6.1": (shutil.which("linux.uml"), debian[-1] if debian else None)}
    for place in {"UML_LAB_KERNELS": "/var/cache/uml-lab-kernels"}, {}:  # root's, the user's own
        told = subprocess.run([KERNELS, "--list"], capture_output=True, text=True, env=os.environ | place).stdout
        for line in told.splitlines():
            version, release, path = line.split("\t")
            found[version] = (path, f"{os.path.dirname(path)}/modules/{release}")
    return found


def initramfs(modules):
    """One image for a kernel: programs, the driver of a virtio network device if it has one, and what to do."""
    root = f"{FOLDER}/root"
    shutil.rmtree(root, ignore_errors=True)
    for folder in "bin", "proc", "sys", "dev", "lib":
        os.makedirs(f"{root}/{folder}")
    shutil.copy(shutil.which("busybox"), f"{root}/bin/busybox")
    shutil.copy(f"{FOLDER}/netplug-blast", f"{root}/bin/")
    for name in "failover", "net_failover", "virtio_net":
        for path in glob.glob(f"{modules}/**/{name}.ko*", recursive=True) if modules else []:
            base = os.path.basename(path)
            shutil.copy(path, f"{root}/lib/{base}")
            if base.endswith(".xz"):
                subprocess.run(["xz", "-d", f"{root}/lib/{base}"], check=True)
    measure = "\n".join(
        f"echo BEGIN {name}; echo END {name}: $(timeout -s KILL 20 netplug-blast {verb} $PORT {MS} {flows or ''})"
        for name, verb, flows in MEASURES)
    with open(f"{root}/init", "w") as init:
        init.write(f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
ip link set lo up
for m in failover net_failover virtio_net; do insmod /lib/$m.ko 2>/dev/null; done
ip link set vec0 name eth0 2>/dev/null
[ -z "$MTU" ] || ip link set eth0 mtu $MTU
ip link set eth0 up
ip addr add $ADDRESS/24 dev eth0
[ -z "$GATEWAY" ] || ip route add default via $GATEWAY
[ "$ROLE" != server ] || netplug-blast serve $PORT 0.0.0.0
until ping -c 1 -W 1 $PEER >/dev/null || [ -n "$GATEWAY" ]; do :; done
{measure}
poweroff -f
""")
    os.chmod(f"{root}/init", 0o755)
    subprocess.run(f"cd {root} && find . | busybox cpio -o -H newc >{FOLDER}/cpio 2>/dev/null", shell=True, check=True)


def cpu(roots):
    """Seconds of these processes and all below them, those included that ended and were waited for."""
    parent, used = {}, {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                text = f.read()
        except OSError:
            continue  # ended meanwhile
        fields = text.rsplit(")", 1)[1].split()
        pid = int(path.split("/")[2])
        parent[pid] = int(fields[1])
        used[pid] = sum(map(int, fields[11:15])) / TICK
    total = 0
    for pid, seconds in used.items():
        at = pid
        while at and at not in roots:
            at = parent.get(at, 0)
        total += seconds if at else 0
    return total


class Contest:
    """What one boot needs: everything started here ends with it."""

    def __init__(self, kernel, port):
        self.kernel, self.port, self.children, self.guests = kernel, port, [], 0

    def start(self, *command, **more):
        more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
        child = subprocess.Popen(command, start_new_session=True, **more)
        self.children.append(child)
        return child

    def path(self, name):
        path = f"{FOLDER}/{name}"
        shutil.rmtree(path, ignore_errors=True)
        if os.path.lexists(path):
            os.unlink(path)
        return path

    def wait_for(self, path):
        end = time.monotonic() + 5
        while not os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.02)
        return path

    def switch(self):
        path = self.path("net")
        child = self.start("vde_switch", "-x", "-f", "/dev/null", "-s", path, "-m", "0600", stdin=subprocess.PIPE)
        self.wait_for(f"{path}/ctl")
        return path

    def guest(self, network, **settings):
        """Kept on one processor, as uml-lab keeps each guest (machine/placement.c); the second one on another, if there is one."""
        cpus = sorted(os.sched_getaffinity(0))
        placed = [] if PLACED == "no" else ["taskset", "-c", str(cpus[self.guests % len(cpus)])]
        self.guests += 1
        return self.start(*placed, self.kernel, "mem=128M", f"initrd={FOLDER}/cpio", "root=/dev/ram0", "rdinit=/init",
                          f"uml_dir={FOLDER}/uml/", network, f"PORT={self.port}", *(f"{k}={v}" for k, v in settings.items()), "con0=fd:0,fd:1", "con=null",
                          "ssl=null", "quiet", "noreboot", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def measure(self, guest):
        """Name to (value, CPU seconds)."""
        results, before = {}, 0
        signal.alarm(BOOT_SECONDS + len(MEASURES) * MS // 1000)
        try:
            for line in guest.stdout:
                words = line.decode(errors="replace").strip()
                if words.startswith("BEGIN "):
                    before = cpu([c.pid for c in self.children])
                elif words.startswith("END "):
                    name, value = words[4:].split(":", 1)
                    spent = cpu([c.pid for c in self.children]) - before
                    results[name] = (float(value), spent) if value.strip().replace(".", "").isdigit() else (0, 0)
        except TimeoutError:
            pass
        signal.alarm(0)
        return results

    def end(self):
        for child in reversed(self.children):
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()


def on_alarm(*_):
    raise TimeoutError


def bess(path, mac, mtu):
    return f"vec0:transport=bess,dst={path},mac={MAC % mac},mtu={mtu}"


# ---- to the host: each starts its side and returns the guest ----

HOST = {"ADDRESS": "10.0.2.15", "GATEWAY": "10.0.2.2", "PEER": "10.0.2.2"}


def with_host_server(contest):
    contest.start(f"{FOLDER}/netplug-blast", "serve", str(contest.port))


def host_netplug(contest):
    with_host_server(contest)
    path = contest.path("sock")
    contest.start("uml-netplug", "--slirp", "--host", "--mtu", str(SLIRP_MTU), "--socket", path)
    return contest.guest(bess(contest.wait_for(path), 1, SLIRP_MTU), **HOST)


def host_netplug_vhost(contest):
    with_host_server(contest)
    path = contest.path("sock")
    contest.start("uml-netplug", "--slirp", "--host", "--vhost-user", "--mtu", str(VIRTIO_MTU), "--socket", path)
    return contest.guest(f"virtio_uml.device={contest.wait_for(path)}:1", **HOST)


def host_slirp4netns(contest):
    with_host_server(contest)
    path = contest.path("sock")
    contest.start("slirp4netns", "--target-type=bess", f"--mtu={SLIRP_MTU}", path)
    return contest.guest(bess(contest.wait_for(path), 1, SLIRP_MTU), **HOST)


def host_legacy(contest):
    with_host_server(contest)
    return contest.guest(f"eth0=slirp,,{shutil.which('slirp-fullbolt')}", **HOST)


def passt():
    """One that speaks vhost-user, beside a kernel that tests/kernels fetched; Debian 12's own, beside linux.uml, is older."""
    for kernel, _ in uml_kernels().values():
        path = f"{os.path.dirname(kernel or '')}/passt"
        if os.access(path, os.X_OK):
            told = subprocess.run([path, "--help"], capture_output=True, text=True)
            if "--vhost-user" in told.stdout + told.stderr:
                return path
    return None


def host_passt(contest):
    with_host_server(contest)
    path = contest.path("sock")
    contest.start(passt(), "--foreground", "--vhost-user", "--socket", path, "--address", "10.0.2.15", "--netmask", "24", "--gateway",
                  "10.0.2.2", "--map-host-loopback", "10.0.2.2", "--mtu", str(PASST_MTU), "--ipv4-only")
    return contest.guest(f"virtio_uml.device={contest.wait_for(path)}:1", MTU=PASST_MTU, **HOST)


# ---- to another guest, over one hub ----

FIRST, SECOND = {"ADDRESS": "10.0.0.1", "PEER": "10.0.0.2"}, {"ADDRESS": "10.0.0.2", "ROLE": "server"}


def two_guests(contest, network):
    contest.guest(network(2), **SECOND).stdout.close()
    return contest.guest(network(1), **FIRST)


def plugs(contest, *options):
    switch = contest.switch()
    for i in 1, 2:
        contest.start("uml-netplug", "--vde", switch, "--socket", contest.path(f"sock{i}"), *options)
    for i in 1, 2:
        contest.wait_for(f"{FOLDER}/sock{i}")


def guests_netplug(contest):
    plugs(contest)
    return two_guests(contest, lambda i: bess(f"{FOLDER}/sock{i}", i, 1500))


def guests_netplug_vhost(contest):
    plugs(contest, "--vhost-user")
    return two_guests(contest, lambda i: f"virtio_uml.device={FOLDER}/sock{i}:1")


def guests_vde(contest):
    switch = contest.switch()
    return two_guests(contest, lambda i: f"eth0=vde,{switch},{MAC % i}")


def guests_daemon(contest):
    switch = contest.switch()
    return two_guests(contest, lambda i: f"eth0=daemon,{MAC % i},unix,{switch}/ctl")


def tables():
    """(title, kernel, contenders: the first is the one that the others are measured by)."""
    yield "guest and host", "6.1", [
        (f"uml-netplug vhost-user {VIRTIO_MTU}", host_netplug_vhost, True),
        (f"uml-netplug bess {SLIRP_MTU}", host_netplug, True),
        (f"slirp4netns bess {SLIRP_MTU}", host_slirp4netns, shutil.which("slirp4netns")),
        ("legacy slirp 1500", host_legacy, shutil.which("slirp-fullbolt"))]
    yield "guest and host", "7.2", [
        (f"uml-netplug vhost-user {VIRTIO_MTU}", host_netplug_vhost, True),
        (f"uml-netplug bess {SLIRP_MTU}", host_netplug, True),
        (f"slirp4netns bess {SLIRP_MTU}", host_slirp4netns, shutil.which("slirp4netns")),
        (f"passt vhost-user {PASST_MTU}", host_passt, passt())]
    yield "guest and host", "6.12", [
        (f"uml-netplug vhost-user {VIRTIO_MTU}", host_netplug_vhost, True),
        (f"slirp4netns bess {SLIRP_MTU}", host_slirp4netns, shutil.which("slirp4netns"))]
    yield "guest and guest", "6.1", [
        ("uml-netplug vhost-user 1500", guests_netplug_vhost, True),
        ("uml-netplug bess 1500", guests_netplug, True),
        ("kernel vde 1500", guests_vde, True),
        ("kernel daemon 1500", guests_daemon, True)]
    yield "guest and guest", "7.2", [
        ("uml-netplug vhost-user 1500", guests_netplug_vhost, True),
        ("uml-netplug bess 1500", guests_netplug, True)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(kernel, start):
    contest = Contest(kernel, free_port())
    try:
        return contest.measure(start(contest))
    finally:
        contest.end()


def columns(runs):
    """Medians: each measure, then CPU seconds for a gigabit out and in."""
    values = {name: statistics.median([r.get(name, (0, 0))[0] for r in runs]) for name, _, _ in MEASURES}
    for name in "out", "in":
        each = [r[name][1] / (r[name][0] * MS / 1e6) for r in runs if r.get(name, (0, 0))[0]]
        values[f"CPU {name}"] = statistics.median(each) if each else 0
    return values


def show(title, version, release, results):
    names = [name for name, _, _ in MEASURES] + ["CPU out", "CPU in"]
    print(f"\n{title}, kernel {release}, medians of {ROUNDS}: Mbit/s with 1 and 4 flows, small packets a second, CPU seconds a gigabit")
    print(f"{'':32}" + "".join(f"{n:>9}" for n in names))
    first = None
    for contender, runs in results:
        values = columns(runs)
        print(f"{contender:32}" + "".join(f"{values[n]:9.2f}" if "CPU" in n else f"{values[n]:9.0f}" for n in names))
        if first:
            ratios = [first[n] / values[n] if values[n] else 0 for n in names]
            print(f"{'  first : this':32}" + "".join(f"{r:9.2f}" if r else f"{'-':>9}" for r in ratios))
        first = first or values


def main():
    signal.signal(signal.SIGALRM, on_alarm)
    kernels, only = uml_kernels(), os.environ.get("ONLY", "")
    for title, version, contenders in tables():
        if not kernels.get(version, (None,))[0]:
            print(f"{title}: kernel {version} is not here (tests/kernels)")
            continue
        kernel, modules = kernels[version]
        initramfs(modules)
        for name, _, there in contenders:
            if not there:
                print(f"{name}: not installed (a passt with vhost-user comes with the kernels of tests/kernels)")
        contenders = [c for c in contenders if c[2] and only in c[0]]
        results = [(name, []) for name, _, _ in contenders]
        # Each round begins with another one: who comes after whom is worth some per cent.
        for i in range(ROUNDS):
            for j in range(len(contenders)):
                k = (i + j) % len(contenders)
                results[k][1].append(run(kernel, contenders[k][1]))
        if results:
            show(title, version, subprocess.run([kernel, "--version"], capture_output=True, text=True).stdout.strip(), results)


main()
