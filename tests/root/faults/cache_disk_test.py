#!/usr/bin/env python3
"""The disk below the cache is full, read-only, or fails: readers see right bytes or EIO, and it heals."""
import concurrent.futures
import errno
import glob
import json
import os
import subprocess
import sys
import time
import unittest

from daemon_fixture import BIN, is_mounted, wait_for
from faults_fixture import FaultCase, read

MIB = 1 << 20


class DiskCase(FaultCase):
    def setUp(self):
        super().setUp()
        self.cache = os.path.join(self.dir, "cache")
        os.makedirs(self.cache)

    def start_daemon(self, *options, **more):
        return super().start_daemon(*options, cache__directory=self.cache, **more)

    def read_any(self, point):
        """Reads every file; right bytes or EIO. The names of those that came."""
        came = []
        for name, data in self.FILES.items():
            try:
                self.assertEqual(read(os.path.join(point, name)), data, name)
                came.append(name)
            except OSError as error:
                self.assertEqual(error.errno, errno.EIO)
        return came

    def drop_page_cache(self, point):
        """What is read from now on is asked of davitd again."""
        for name in self.FILES:
            with open(os.path.join(point, name), "rb") as handle:
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def check_alive(self):
        self.assertIsNone(self.daemon.process.poll(), self.daemon.log_text()[-3000:])
        self.assertEqual(self.daemon.call("GET", "/api/v1/mounts/m")["state"], "mounted")


class FullDiskTest(DiskCase):
    def mount_disk(self, size):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.cache], check=True)

    def ballast(self):
        """Takes all the room that is left."""
        with open(os.path.join(self.cache, "ballast"), "wb") as handle:
            try:
                while True:
                    handle.write(bytes(65536))
                    handle.flush()
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
            try:
                handle.close()
            except OSError:
                pass

    def free_ballast(self):
        os.unlink(os.path.join(self.cache, "ballast"))

    def test_a_disk_smaller_than_the_image(self):
        """What is full of davit's own data makes room for what is wanted now."""
        self.mount_disk(4 * MIB)
        self.start_daemon()
        point = self.mount()
        self.check_all(point, readers=4)
        self.drop_page_cache(point)
        self.check_all(point, readers=1)
        self.check_alive()
        self.assertGreater(self.daemon.call("GET", "/api/v1/cache")["evicted_bytes"], 0)

    def test_a_restart_when_full_of_its_own_data(self):
        self.mount_disk(4 * MIB)
        self.start_daemon()
        point = self.mount()
        self.check_all(point, readers=4)
        self.ballast()  # the last block
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.check_all(point, readers=4)
        self.check_alive()

    def test_full_of_other_data(self):
        self.mount_disk(16 * MIB)
        self.start_daemon()
        point = self.mount()
        self.check_file(point, "data/0")
        self.daemon.call("POST", "/api/v1/cache/evict", {"bytes": 1 << 30})
        self.ballast()
        took = self.check_error(os.path.join(point, "data/7"))
        self.assertLess(took, 5)
        self.assertTrue([line for line in self.log_lines("a request of the kernel failed") if "No space left" in line],
                        self.daemon.log_text()[-2000:])
        self.read_any(point)
        self.check_alive()
        self.free_ballast()
        self.drop_page_cache(point)
        self.check_all(point)

    def test_full_while_readers_run_and_filling_goes_on(self):
        self.mount_disk(16 * MIB)
        self.start_daemon(cache__fill="true")
        self.ballast()
        self.registry.fault("drip", bytes_per_second=3 * MIB)
        point = self.mount(fill=True)
        self.read_any(point)
        self.check_alive()
        self.free_ballast()
        self.registry.clear()
        self.drop_page_cache(point)
        self.check_all(point)

    def test_full_at_the_start(self):
        self.mount_disk(2 * MIB)
        self.ballast()
        with self.assertRaises(AssertionError) as raised:
            self.start_daemon()
        self.assertIn("davitd ended", str(raised.exception))
        self.assertIn("No space left", str(raised.exception))
        self.assertIn(self.cache, str(raised.exception))


class FailingDiskTest(DiskCase):
    """bin/failing-fs stands between davitd and its disk."""

    def setUp(self):
        super().setUp()
        self.switches = os.path.join(self.dir, "switches")
        below = os.path.join(self.dir, "below")
        os.makedirs(below)
        process = subprocess.Popen([os.path.join(BIN, "failing-fs"), below, self.cache, self.switches], stderr=subprocess.DEVNULL)

        def end():
            self.switch()
            subprocess.run(["umount", "-l", self.cache], check=False)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.addCleanup(end)
        wait_for(lambda: is_mounted(self.cache), 20, "failing-fs")

    def switch(self, **errors):
        """switch(write=errno.EIO, …); without words: the disk works."""
        with open(self.switches + ".new", "w", encoding="utf-8") as text:
            text.write("".join(f"{operation} {code}\n" for operation, code in errors.items()))
        os.rename(self.switches + ".new", self.switches)

    READ_ONLY = dict.fromkeys(("write", "sync", "truncate", "punch", "open_write", "create", "unlink", "rename", "mkdir"), errno.EROFS)

    def test_no_fault(self):
        self.start_daemon()
        self.check_all(self.mount())

    def test_writes_fail(self):
        self.start_daemon()
        point = self.mount()
        self.check_file(point, "data/0")
        self.switch(write=errno.EIO)
        self.check_error(os.path.join(point, "data/7"))
        line = self.log_lines("a request of the kernel failed")[0]
        self.assertIn("Input/output error", line)
        self.assertIn("check the cache's disk", line)
        self.drop_page_cache(point)
        self.check_file(point, "data/0")  # what is there can be read
        self.assertGreater(self.daemon.call("GET", "/api/v1/cache")["write_errors"], 0)
        self.check_alive()
        self.switch()
        self.check_all(point)

    def test_read_only(self):
        self.start_daemon()
        point = self.mount()
        self.check_file(point, "data/0")
        self.switch(**self.READ_ONLY)
        self.drop_page_cache(point)
        self.check_file(point, "data/0")
        self.check_error(os.path.join(point, "data/7"))
        self.assertIn("Read-only file system", self.log_lines("a request of the kernel failed")[0])
        self.read_any(point)
        self.check_alive()
        self.switch()
        self.check_all(point)

    def test_reads_fail(self):
        self.start_daemon()
        point = self.mount()
        self.check_all(point)
        self.drop_page_cache(point)
        self.switch(read=errno.EIO)
        self.check_error(os.path.join(point, "data/7"))
        self.check_alive()
        self.switch()
        self.check_all(point)

    def test_a_sector_cannot_be_read(self):
        """What the disk has lost is fetched anew."""
        self.start_daemon(cache__flush_interval="50ms")
        point = self.mount()
        self.check_all(point)
        time.sleep(0.3)  # nothing is written any more
        self.drop_page_cache(point)
        self.switch(read_unwritten=errno.EIO)
        self.check_all(point)
        self.assertTrue(self.log_lines("cached chunks cannot be read and are fetched anew"))
        self.assertFalse(self.log_lines("a request of the kernel failed"))
        _, text, _ = self.daemon.request("GET", "/metrics")
        lost = next(line for line in str(text).splitlines() if line.startswith("davit_cache_lost_chunks_total "))
        self.assertGreater(float(lost.split()[1]), 0)
        self.assertGreater(self.daemon.call("GET", "/api/v1/cache")["lost_chunks"], 0)
        self.check_alive()

    def test_syncs_fail(self):
        """What may not have reached the disk is not counted as cached; it is fetched again."""
        self.start_daemon(cache__flush_interval="100ms")
        point = self.mount()
        self.switch(sync=errno.EIO)
        self.check_all(point)
        wait_for(lambda: self.log_lines("cannot make cached data durable"), 20, "a failed flush")
        self.daemon.kill()
        self.switch()
        self.daemon.start()
        self.check_all(point)
        self.check_alive()

    def test_it_hangs_while_space_is_freed(self):
        """Nobody but who asked for the space waits for the disk."""
        self.start_daemon()
        self.check_all(self.mount())
        self.daemon.call("DELETE", "/api/v1/mounts/m")
        cached = wait_for(lambda: (lambda blobs: blobs and not any(blob["in_use"] for blob in blobs) and blobs)(
            self.daemon.call("GET", "/api/v1/cache")["blobs"]), 20, "an unused blob")
        self.switch(unlink=-1, punch=-1, rename=-1)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.daemon.request, "POST", "/api/v1/cache/evict", {"bytes": cached[0]["bytes_ready"]})
            try:
                wait_for(lambda: self.log_lines("freeing space on request"), 20, "the eviction")
                self.assertEqual(self.daemon.request("POST", "/api/v1/cache/evict", {"bytes": 1})[0], 423)
                for path in ("/healthz", "/api/v1/cache", "/api/v1/mounts", "/api/v1/metrics", "/metrics", "/api/v1/daemon"):
                    began = time.monotonic()
                    self.daemon.request("GET", path, timeout=5)
                    self.assertLess(time.monotonic() - began, 2, path)
                self.assertFalse(asked.done())
            finally:
                self.switch()
            status, text, _ = asked.result(30)
        self.assertEqual(status, 200, text)
        self.assertGreater(json.loads(text)["freed_bytes"], 0)

    def test_it_fails_now_and_then(self):
        self.start_daemon(cache__flush_interval="50ms")
        point = self.mount()
        for round in range(12):
            self.switch(**{("write", "sync", "read", "punch")[round % 4]: errno.EIO})
            self.read_any(point)
            self.switch()
            time.sleep(0.1)
            self.drop_page_cache(point)
            self.daemon.call("POST", "/api/v1/cache/evict", {"bytes": 2 * MIB})
        self.check_all(point)
        self.check_alive()

    def test_a_restart_on_a_disk_that_cannot_be_written(self):
        self.start_daemon()
        point = self.mount()
        self.check_file(point, "data/0")
        self.assertEqual(self.daemon.stop(), 0)
        self.switch(**self.READ_ONLY)
        self.daemon.start(wait=False)
        self.assertEqual(self.daemon.process.wait(20), 1)
        self.assertIn("Read-only file system", self.daemon.log_text())
        self.assertIn(self.cache, self.daemon.log_text())
        self.switch()
        self.daemon.start()
        self.check_all(point)


class MeddlingTest(DiskCase):
    def test_a_data_file_is_cut_short(self):
        self.start_daemon()
        point = self.mount()
        self.check_all(point)
        for size in (100_000, 0):
            for path in glob.glob(os.path.join(self.cache, "blobs", "*", "data")):
                os.truncate(path, size)
            self.drop_page_cache(point)
            self.check_all(point, readers=4)
        self.assertTrue(self.log_lines("was cut short by somebody"))
        self.assertFalse(self.log_lines("a request of the kernel failed"))
        self.check_alive()


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
