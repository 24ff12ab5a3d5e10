"""Parts of the benchmark: the modelled registry, davit and nydus as contestants, timing."""
import contextlib
import gzip
import hashlib
import http.client
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BIN = os.environ.get("DAVIT_BIN_DIR", os.path.join(ROOT, "build/release/bin"))
CACHE = os.environ.get("DAVIT_CACHE", "/var/cache/davit")


def pin_warning():
    """What to say when the peers come from a checkout that is not at the pinned commit, or None."""
    spec = importlib.util.spec_from_file_location("interop_lib", os.path.join(ROOT, "tests/interop/lib.py"))
    interop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(interop)
    return interop.pin_warning()


def nydus_dir():
    """Directory with the real nydus binaries, or None."""
    for path in (os.environ.get("NYDUS_BIN"), os.path.join(os.environ["NYDUS_SRC"], "target/release") if "NYDUS_SRC" in os.environ else None,
                 os.path.join(CACHE, "peers/bin")):
        if path and os.path.exists(os.path.join(path, "nydusd")):
            return path
    return None


def run(*command, **options):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace", **options)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {result.returncode}\n{(result.stdout + result.stderr)[-3000:]}")
    return result.stdout


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as handle:
        handle.write("3")


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.002)
    raise RuntimeError(f"{what}: not within {seconds} s")


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Registry:
    """The project's fake registry as a program: a layout over HTTP with latency and bandwidth."""

    def __init__(self, layout, latency_ms=0, bytes_per_second=0):
        self.process = subprocess.Popen([os.path.join(BIN, "fake-registry"), "--port", "0", "--root", layout, "--name", "bench",
                                         "--latency-ms", str(latency_ms), "--bytes-per-second", str(int(bytes_per_second))],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split()[-1])
        self.host = f"127.0.0.1:{self.port}"

    def stats(self):
        with urllib.request.urlopen(f"http://{self.host}/_stats") as reply:
            return json.load(reply)

    def close(self):
        stop(self.process)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Window:
    """What the registry sent between two moments."""

    def __init__(self, registry):
        self.registry, self.before = registry, registry.stats()

    def done(self):
        after = self.registry.stats()
        return {key: after[key] - self.before[key] for key in ("requests", "bytes", "connections")}


def rss_kib(pid, what="VmRSS"):
    with open(f"/proc/{pid}/status") as handle:
        for line in handle:
            if line.startswith(what + ":"):
                return int(line.split()[1])
    return 0


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as handle:
        for line in handle:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("davitd", timeout=600)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Davit:
    """davitd runs already, as on a node; images are mounted through its API, as davit-csi does."""

    name = "davit"

    def __init__(self, work, reference, fill=True, extra=()):
        self.work, self.reference, self.fill = work, reference, fill
        os.makedirs(work)
        self.socket = os.path.join(work, "davitd.sock")
        self.log = open(os.path.join(work, "log"), "w")
        self.process = subprocess.Popen([os.path.join(BIN, "davitd"), "--state-dir", os.path.join(work, "state"), "--socket", self.socket, *extra],
                                        stdout=self.log, stderr=subprocess.STDOUT)
        wait_for(lambda: os.path.exists(self.socket), "davitd socket")
        self.mounts = []

    @property
    def pid(self):
        return self.process.pid

    def mount(self, mountpoint, reference=None):
        os.makedirs(mountpoint, exist_ok=True)
        request = {"id": os.path.basename(mountpoint), "source": reference or self.reference, "mountpoint": mountpoint,
                   "plain_http": True, "fill": self.fill}
        info = self.call("POST", "/api/v1/mounts", request)
        while info["state"] == "mounting":
            time.sleep(0.01)
            info = self.call("GET", "/api/v1/mounts/" + request["id"])
        if info["state"] != "mounted":
            raise RuntimeError(f"mount: {info}")
        self.mounts.append(mountpoint)

    def call(self, method, path, body=None):
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            text = reply.read().decode()
        finally:
            connection.close()
        if not 200 <= reply.status < 300:
            raise RuntimeError(f"{method} {path}: {reply.status} {text}")
        return json.loads(text)

    def complete(self):
        def done():
            return all(m["complete"] for m in self.call("GET", "/api/v1/mounts"))
        wait_for(done, "image complete", 300)

    def close(self):
        for mountpoint in self.mounts:
            subprocess.run(["umount", mountpoint], capture_output=True)
        stop(self.process)
        for mountpoint in self.mounts:
            subprocess.run(["umount", "-l", mountpoint], capture_output=True)
        self.log.close()
        shutil.rmtree(self.work, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Nydus:
    """nydusd as a snapshotter runs it: the gzip bootstrap is downloaded first."""

    def __init__(self, work, registry, bootstrap_digest, prefetch=True):
        self.name = "nydus" if prefetch else "nydus-lazy"
        self.work, self.registry, self.bootstrap_digest, self.prefetch = work, registry, bootstrap_digest, prefetch
        os.makedirs(work)
        self.process, self.mounts = None, []
        # Its program is in the page cache, as davitd's is.
        run(os.path.join(nydus_dir(), "nydusd"), "--version")

    @property
    def pid(self):
        return self.process.pid

    def fetch_bootstrap(self):
        with urllib.request.urlopen(f"http://{self.registry.host}/v2/bench/blobs/{self.bootstrap_digest}") as reply:
            data = gzip.decompress(reply.read())
        path = os.path.join(self.work, "image.boot")
        with tarfile.open(fileobj=io.BytesIO(data)) as tar, open(path, "wb") as handle:
            shutil.copyfileobj(tar.extractfile("image/image.boot"), handle)
        return path

    def mount(self, mountpoint):
        os.makedirs(mountpoint, exist_ok=True)
        boot = self.fetch_bootstrap()
        config = {"device": {"backend": {"type": "registry", "config": {"scheme": "http", "host": self.registry.host, "repo": "bench", "timeout": 30, "connect_timeout": 5, "retry_limit": 2}},
                             "cache": {"type": "blobcache", "config": {"work_dir": os.path.join(self.work, "cache")}}},
                  "mode": "direct", "digest_validate": False, "enable_xattr": True,
                  "fs_prefetch": {"enable": self.prefetch, "prefetch_all": self.prefetch, "threads_count": 8, "merging_size": 1 << 20}}
        path = os.path.join(self.work, "config.json")
        os.makedirs(os.path.join(self.work, "cache"), exist_ok=True)
        with open(path, "w") as handle:
            json.dump(config, handle)
        self.log = open(os.path.join(self.work, "log"), "w")
        self.process = subprocess.Popen([os.path.join(nydus_dir(), "nydusd"), "fuse", "--rlimit-nofile", "0", "--config", path, "--mountpoint", mountpoint,
                                         "--bootstrap", boot, "--apisock", os.path.join(self.work, "api.sock"), "--log-level", "warn"],
                                        stdout=self.log, stderr=subprocess.STDOUT)
        self.mounts.append(mountpoint)
        wait_for(lambda: os.path.ismount(mountpoint) or self.process.poll() is not None, "nydusd mount")
        if self.process.poll() is not None:
            raise RuntimeError("nydusd ended: " + open(self.log.name).read()[-1000:])

    def complete(self):
        """Prefetch has ended when the registry sends nothing for a second."""
        last = -1
        while True:
            now = self.registry.stats()["bytes"]
            if now == last:
                return
            last = now
            time.sleep(1)

    def close(self):
        for mountpoint in self.mounts:
            subprocess.run(["umount", "-l", mountpoint], capture_output=True)
        if self.process:
            stop(self.process)
            self.log.close()
        shutil.rmtree(self.work, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def put_blob(layout, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(layout, "blobs/sha256", digest), "wb") as handle:
        handle.write(data)
    return "sha256:" + digest


BIG_BYTES = 5 << 30


def big_image(cache):
    """A layout with the RAFS image of one layer with one 5 GiB file of pieces of this machine's programs, made once; its path."""
    base = os.path.join(cache, "bench-big-1")
    layout = os.path.join(base, "layout")
    if os.path.exists(os.path.join(base, "done")):
        return layout
    shutil.rmtree(base, ignore_errors=True)
    os.makedirs(os.path.join(base, "source"))
    material = b"".join(open(p, "rb").read() for p in sorted(
        (os.path.join(d, n) for d, _, names in os.walk("/usr/lib") for n in names if ".so" in n), key=lambda p: -os.path.getsize(p))[:12]
        if not os.path.islink(p))
    path = os.path.join(base, "source/model.bin")
    with open(path, "wb") as handle:
        for i in range(BIG_BYTES >> 20):  # odd places: no two pieces are alike
            at = int.from_bytes(hashlib.sha256(b"%d" % i).digest()[:8], "little") % (len(material) - (1 << 20))
            handle.write(material[at:at + (1 << 20)])
    run(sys.executable, os.path.join(ROOT, "scripts/make_image.py"), os.path.join(base, "plain"), "src", "--dir", f"{base}/source=/")
    run(os.path.join(BIN, "davit"), "convert", f"oci:{base}/plain:src", f"oci:{layout}:davit", "--quiet")
    shutil.rmtree(os.path.join(base, "source"))
    shutil.rmtree(os.path.join(base, "plain"))
    open(os.path.join(base, "done"), "w").close()
    return layout


def read_file(path):
    """Sequentially, 1 MiB at a time; MB/s."""
    buffer = bytearray(1 << 20)
    total, start = 0, time.monotonic()
    fd = os.open(path, os.O_RDONLY)
    try:
        while got := os.readv(fd, [buffer]):
            total += got
    finally:
        os.close(fd)
    return total / 1e6 / (time.monotonic() - start)


@contextlib.contextmanager
def serving(floor, path, mountpoint):
    """bench_floor's file system over `path`; gives the file in it."""
    os.makedirs(mountpoint)
    process = subprocess.Popen([floor, "fuse", path, mountpoint])
    try:
        wait_for(lambda: os.path.ismount(mountpoint), "bench_floor")
        yield os.path.join(mountpoint, "file")
    finally:
        subprocess.run(["umount", mountpoint], capture_output=True)
        process.wait(20)
