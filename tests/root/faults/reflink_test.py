#!/usr/bin/env python3
"""Two images with the same content in a cache on btrfs: the second one takes no room."""
import glob
import os
import shutil
import subprocess
import sys
import unittest

from daemon_fixture import make_rafs
from faults_fixture import FakeRegistry, FaultCase, make_files
from skips import run_tests

MIB = 1 << 20


def kernel_has(name):
    """Whether it can mount such file systems; its module is loaded for that."""
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", name], check=False)
    with open("/proc/filesystems", encoding="ascii") as table:
        return name in table.read().split()


class ReflinkTest(FaultCase):
    FILES = make_files(24, 1_000_000)
    SIZE = sum(len(data) for data in FILES.values())
    CONVERT = ("--chunk-size", "256KiB")

    @classmethod
    def setUpClass(cls):
        if not kernel_has("btrfs"):
            raise unittest.SkipTest("this kernel has no btrfs")
        super().setUpClass()
        # The files of the other image and some: its blob is another one.
        cls.twin_files = {"first": b"not in the other", **cls.FILES}
        cls.twin_layout = os.path.join(cls.shared, "twin")
        make_rafs(cls.shared, cls.twin_files, f"oci:{cls.twin_layout}:v1", *cls.CONVERT)

    def setUp(self):
        super().setUp()
        self.cache = os.path.join(self.dir, "cache")
        os.makedirs(self.cache)
        image = os.path.join(self.dir, "disk")
        with open(image, "wb") as handle:
            handle.truncate(256 * MIB)
        subprocess.run(["mkfs.btrfs", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self.cache], check=True)
        self.addCleanup(subprocess.run, ["umount", self.cache], check=True)

    def used(self):
        subprocess.run(["sync", "-f", self.cache], check=True)
        st = os.statvfs(self.cache)
        return (st.f_blocks - st.f_bfree) * st.f_frsize

    def test_blocks_are_shared(self):
        self.start_daemon(cache__directory=self.cache)
        twin = FakeRegistry(self.twin_layout)
        self.addCleanup(twin.stop)
        self.check_all(self.mount())
        one = self.used()
        self.assertGreater(one, self.SIZE)
        point = self.mount("twin", registry=twin)
        twin.forget_requests()
        self.check_all(point)
        with open(os.path.join(point, "first"), "rb") as handle:
            self.assertEqual(handle.read(), self.twin_files["first"])
        cache = self.daemon.call("GET", "/api/v1/cache")
        self.assertGreater(cache["deduplicated_bytes"], self.SIZE * 9 // 10)
        self.assertLess(sum(one["body_bytes"] for one in twin.requests("/blobs/")), self.SIZE // 10)
        # Chunks of 64 KiB and more are shared; the files' ends are copied where they are smaller.
        self.assertLess(self.used() - one, self.SIZE // 4)
        shared = sum("shared" in subprocess.run(["filefrag", "-v", data], capture_output=True, text=True, check=True).stdout
                     for data in glob.glob(os.path.join(self.cache, "blobs/*/data")))
        self.assertEqual(shared, 2)
        # One goes, the other stays whole.
        self.daemon.call("DELETE", "/api/v1/mounts/m")
        self.daemon.call("POST", "/api/v1/cache/evict", {"bytes": 1})
        for name in self.FILES:
            with open(os.path.join(point, name), "rb") as handle:
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.check_all(point)
        self.daemon.stop()


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    run_tests()
