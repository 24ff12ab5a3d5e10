"""A registry that misbehaves on demand, an image in it, and a davitd that mounts it."""
import concurrent.futures
import errno
import json
import os
import random
import subprocess
import threading
import time
import unittest

from daemon_fixture import BIN, Daemon, davit, is_mounted, make_rafs, workspace


class FakeRegistry:
    """bin/fake-registry over an OCI layout; every method is safe in every thread."""

    def __init__(self, layout, *options, name="app"):
        words = [os.path.join(BIN, "fake-registry"), "--root", layout, "--name", name, "--control", "yes", *options]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lock = threading.Lock()
        self.port = int(self.process.stdout.readline().split()[1])
        self.host = f"127.0.0.1:{self.port}"
        self.image = f"{self.host}/{name}:v1"

    def command(self, what, **fields):
        with self.lock:
            self.process.stdin.write(json.dumps({"do": what, **fields}) + "\n")
            self.process.stdin.flush()
            reply = json.loads(self.process.stdout.readline())
        if "error" in reply:
            raise AssertionError(reply["error"])
        return reply

    def fault(self, kind, times=-1, path="/blobs/", **fields):
        self.command("fault", kind=kind, times=times, path=path, **fields)

    def clear(self):
        self.command("clear")

    def pending(self):
        """How many faults with a number of times still wait for their request."""
        return self.command("pending")["pending"]

    def away(self, away=True):
        self.command("away", away=away)

    def requests(self, path="", covering=None):
        """Those so far whose path contains `path`; with `covering`, whose range holds that offset."""
        found = [one for one in self.command("requests")["requests"] if path in one["path"]]
        return found if covering is None else [one for one in found if covers(one, covering)]

    def most_uploads(self):
        """The largest number of blobs that were sent at the same time."""
        return self.command("most_uploads")["most_uploads"]

    def forget_requests(self):
        self.command("forget_requests")

    def stop(self):
        if self.process is None:
            return
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process = None


def covers(request, offset):
    if not request["range"]:
        return request["method"] == "GET"
    first, last = request["range"].removeprefix("bytes=").split("-")
    return int(first) <= offset <= int(last)


def find_in_blobs(layout, data):
    """(digest without "sha256:", offset) of the one place where `data` lies as it is in a blob."""
    found = []
    blobs = os.path.join(layout, "blobs/sha256")
    for name in os.listdir(blobs):
        with open(os.path.join(blobs, name), "rb") as blob:
            at = blob.read().find(data)
        if at >= 0:
            found.append((name, at))
    if len(found) != 1:
        raise AssertionError(f"found {len(found)} times, want once: {found}")
    return found[0]


def read(path):
    with open(path, "rb", buffering=0) as handle:
        return handle.readall()


def make_files(count, size):
    """Content that no compressor makes smaller: it lies in blobs as it is."""
    return {f"data/{n}": random.Random(n).randbytes(size + n) for n in range(count)}


def make_layout(directory, files, *options):
    """An OCI layout with the RAFS image `v1` of these files."""
    layout = os.path.join(directory, "layout")
    make_rafs(directory, files, f"oci:{layout}:v1", *options)
    return layout


class FaultCase(unittest.TestCase):
    """One layout for the class; a registry, a davitd and directories of its own for each test."""

    FILES = make_files(12, 600_000)
    CONVERT = ("--chunk-size", "64KiB")
    REGISTRY = ()
    # Short times, so that what takes minutes in production takes seconds here.
    SETTINGS = {"cache__fill": "false", "cache__reserve_free_bytes": "0", "scheduler__demand_patience": "20s",
                "registry__connect_timeout": "1s", "registry__stall_timeout": "1s"}

    @classmethod
    def setUpClass(cls):
        cls.space = workspace()
        cls.shared = cls.space.__enter__()
        cls.addClassCleanup(cls.space.__exit__, None, None, None)
        cls.layout = make_layout(cls.shared, cls.FILES, *cls.CONVERT)

    def setUp(self):
        context = workspace()
        self.dir = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.registry = self.start_registry(*self.REGISTRY)
        self.daemon = None

    def start_registry(self, *options):
        registry = FakeRegistry(self.layout, *options)
        self.addCleanup(registry.stop)
        return registry

    def start_daemon(self, *options, env=None, **settings):
        self.daemon = Daemon(self.dir, **{**self.SETTINGS, **settings})
        self.addCleanup(self.daemon.stop)
        return self.daemon.start(*options, env=env)

    def mount(self, id="m", registry=None, **more):
        point = os.path.join(self.dir, id)
        if not is_mounted(point):
            os.makedirs(point, exist_ok=True)
        self.daemon.mount(id, (registry or self.registry).image, point, plain_http=True, **more)
        return point

    def refuse_mount(self, id="m", **more):
        """(HTTP status, error of the API) of a mount that must fail."""
        point = os.path.join(self.dir, id)
        os.makedirs(point, exist_ok=True)
        body = {"id": id, "source": self.registry.image, "mountpoint": point, "plain_http": True, **more}
        status, text, _ = self.daemon.request("POST", "/api/v1/mounts", body)
        self.assertGreaterEqual(status, 400, text)
        self.assertFalse(is_mounted(point))
        return status, json.loads(text)

    def check_file(self, point, name):
        self.assertEqual(read(os.path.join(point, name)), self.FILES[name], name)

    def cold_names(self):
        """The files from the blob's end to its beginning: nothing is read ahead of such a reader."""
        return iter(sorted(self.FILES, reverse=True))

    def check_direct(self, point, name):
        """The same with one request of the kernel, which must not fail."""
        data = self.FILES[name]
        got = read_direct(os.path.join(point, name), 0, (len(data) + 4095) // 4096 * 4096)
        self.assertEqual(got, data, name)

    def check_all(self, point, readers=8, seconds=60):
        """Every file through `readers` threads; fails after `seconds`. Returns the seconds it took."""
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(readers) as pool:
            futures = {pool.submit(read, os.path.join(point, name)): name for name in self.FILES}
            done, pending = concurrent.futures.wait(futures, timeout=seconds)
            if pending:
                pool.shutdown(wait=False, cancel_futures=True)
                self.fail(f"readers still wait after {seconds} s:\n{self.daemon.log_text()[-3000:]}")
        for future in done:
            if future.exception() is not None:
                self.fail(f"{futures[future]}: {future.exception()}\n{self.daemon.log_text()[-4000:]}")
            self.assertEqual(future.result(), self.FILES[futures[future]], futures[future])
        return time.monotonic() - began

    def check_hit(self, registry=None):
        """The faults that were set with a number of times have all happened."""
        self.assertEqual((registry or self.registry).pending(), 0, "a fault did not happen")

    def check_error(self, path, code=errno.EIO, seconds=30):
        """Reading the file must fail with this errno, and in time. Returns the seconds it took."""
        began = time.monotonic()
        with self.assertRaises(OSError) as raised:
            read(path)
        took = time.monotonic() - began
        self.assertEqual(raised.exception.errno, code)
        self.assertLess(took, seconds)
        return took

    def log_lines(self, text):
        return [line for line in self.daemon.log_text().splitlines() if text in line]


def read_direct(path, offset, size=4096):
    """One read that goes past the page cache: exactly one request of the kernel."""
    import mmap
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, size) as buffer:
            got = os.preadv(fd, [buffer], offset)
            return bytes(buffer[:got])
    finally:
        os.close(fd)


__all__ = ["FakeRegistry", "FaultCase", "davit", "find_in_blobs", "make_files", "make_layout", "read", "read_direct"]
