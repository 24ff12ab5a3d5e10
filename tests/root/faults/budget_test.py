#!/usr/bin/env python3
"""A cache smaller than what is mounted, and a davitd killed while most of an image is still away."""
import concurrent.futures
import os
import random
import sys
import threading
import time
import unittest

from daemon_fixture import make_rafs, wait_for
from faults_fixture import FakeRegistry, FaultCase, make_files, read_direct

READERS = 16


class ReadersCase(FaultCase):
    FILES = make_files(40, 600_000)
    SIZE = sum(len(data) for data in FILES.values())

    def direct(self, point, name):
        """The whole file past the page cache: each time davitd has to have it."""
        size = (len(self.FILES[name]) + 4095) // 4096 * 4096
        return read_direct(os.path.join(point, name), 0, size)

    def cache(self):
        return self.daemon.call("GET", "/api/v1/cache")

    def progress(self, id="m"):
        return self.daemon.call("GET", f"/api/v1/mounts/{id}")


class BudgetTest(ReadersCase):
    def test_half_of_the_image_and_16_readers(self):
        budget = self.SIZE // 2
        self.start_daemon(cache__budget_bytes=budget)
        point = self.mount()
        highest = [0]
        stop = threading.Event()

        def watch():
            while not stop.is_set():
                highest[0] = max(highest[0], self.cache()["bytes_on_disk"])
                stop.wait(0.05)

        def reader(seed):
            names = list(self.FILES)
            random.Random(seed).shuffle(names)
            for name in names:
                if self.direct(point, name) != self.FILES[name]:
                    raise AssertionError(f"{name} has other bytes")

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
                futures = [pool.submit(reader, seed) for seed in range(READERS)]
                done, pending = concurrent.futures.wait(futures, timeout=150)
                self.assertFalse(pending, "readers still wait")
        finally:
            stop.set()
            watcher.join()
        for future in done:
            future.result()
        self.assertGreater(self.cache()["evicted_bytes"], self.SIZE)  # more than once around
        self.assertLess(highest[0], self.SIZE)
        wait_for(lambda: self.cache()["bytes_on_disk"] <= budget, 10, "within the budget")
        self.assertEqual(self.cache()["corrupt_chunks"], 0)
        self.assertEqual(self.log_lines("a request of the kernel failed"), [])

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        files = {f"other/{n}": random.Random(1000 + n).randbytes(600_000) for n in range(40)}
        cls.other_layout = os.path.join(cls.shared, "other")
        make_rafs(cls.shared, files, f"oci:{cls.other_layout}:v1", *cls.CONVERT)

    def other_image(self):
        """A registry with an image of as much other content."""
        registry = FakeRegistry(self.other_layout)
        self.addCleanup(registry.stop)
        return registry

    def test_what_nobody_uses_makes_room_for_a_whole_image(self):
        self.start_daemon(cache__budget_bytes=self.SIZE * 3 // 2)
        other = self.other_image()
        self.mount("old", registry=other, ready="complete")
        self.daemon.call("DELETE", "/api/v1/mounts/old")
        self.mount("new", ready="complete")
        self.assertTrue(self.progress("new")["complete"])
        self.check_all(os.path.join(self.dir, "new"))
        self.assertGreater(self.cache()["evicted_bytes"], 0)

    def test_what_is_in_use_does_not(self):
        self.start_daemon(cache__budget_bytes=self.SIZE * 3 // 2)
        other = self.other_image()
        used = self.mount("used", registry=other, ready="complete")
        status, error = self.refuse_mount("new", ready="complete")
        self.assertEqual(error["code"], "resource_exhausted", (status, error))
        self.assertIn("raise cache.budget_bytes", error["message"])
        self.assertTrue(self.progress("used")["complete"])
        self.assertEqual(self.cache()["evicted_bytes"], 0)
        # Readers are another matter: they get what they want.
        point = self.mount("new")
        self.check_all(point)
        self.assertTrue(os.path.ismount(used))


class KillTest(ReadersCase):
    def test_killed_while_most_is_away(self):
        self.start_daemon()
        # So slow that at every kill much of the image has never been here.
        self.registry.fault("drip", bytes_per_second=100_000)
        point = self.mount()
        wrong = []
        stop = threading.Event()

        def reader(seed):
            choice = random.Random(seed)
            names = list(self.FILES)
            while not stop.is_set():
                name = choice.choice(names)
                try:
                    if self.direct(point, name) != self.FILES[name]:
                        wrong.append(name)
                except OSError:
                    time.sleep(0.01)  # dead, gone or not there yet; never other bytes

        threads = [threading.Thread(target=reader, args=(n,)) for n in range(READERS)]
        for thread in threads:
            thread.start()
        kept = []
        try:
            for _ in range(3):
                before = self.progress()["bytes_ready"]
                wait_for(lambda: self.progress()["bytes_ready"] > before + 3_000_000, 60, "progress")
                self.assertLess(self.progress()["bytes_ready"], self.SIZE * 3 // 4)
                self.daemon.kill()
                self.daemon.start()
                kept.append(self.progress()["bytes_ready"])
        finally:
            stop.set()
            self.registry.clear()
            for thread in threads:
                thread.join(60)
        self.assertFalse(any(thread.is_alive() for thread in threads))
        self.assertEqual(wrong, [])
        self.assertGreater(kept[-1], 500_000, kept)  # what was flushed is not fetched again
        self.check_all(point)
        for name in self.FILES:
            self.assertEqual(self.direct(point, name), self.FILES[name], name)
        self.assertEqual(self.cache()["lost_chunks"], 0)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
