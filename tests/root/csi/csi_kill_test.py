#!/usr/bin/env python3
"""kill -9 of davitd and of davit-csi around published volumes, with the real programs."""
import glob
import os
import random
import signal
import subprocess
import sys
import time
import unittest

from csi_fixture import PATIENCE, Driver
from daemon_fixture import BIN, Registry, is_mounted, make_rafs, wait_for, workspace

FILES = {"etc/hello": b"hello\n", **{f"data/{n}": random.Random(n).randbytes(400_000 + n) for n in range(8)}}


class CsiKillTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        space = workspace()
        shared = space.__enter__()
        cls.addClassCleanup(space.__exit__, None, None, None)
        cls.registry = Registry(shared).start()
        cls.addClassCleanup(cls.registry.stop)
        cls.image = f"{cls.registry.host}/test/image:v1"
        make_rafs(shared, FILES, cls.image)

    def setUp(self):
        context = workspace()
        self.dir = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.driver = Driver(self.dir)
        self.addCleanup(self.driver.end)
        os.makedirs(os.path.join(self.dir, "pod"))
        self.target = os.path.join(self.dir, "pod/mount")
        self.driver.start().wait_ready()

    def ok(self, done):
        self.assertEqual(done.returncode, 0, done.stderr + "\n" + self.driver.log_tail())
        return done

    def works(self):
        """Whether the volume shows all of the image; any error of a dead mount is a no."""
        try:
            for name, data in FILES.items():
                with open(os.path.join(self.target, name), "rb") as handle:
                    if handle.read() != data:
                        self.fail(f"{name}: wrong bytes")
            return True
        except OSError:
            return False

    def assert_nothing_left(self):
        self.assertFalse(os.path.lexists(self.target))
        self.assertEqual(glob.glob(os.path.join(self.driver.state, "csi/journal/*")), [])

        def clean():
            with open("/proc/self/mountinfo", encoding="utf-8") as table:
                mounted = any(self.dir in line for line in table)
            return not mounted and os.listdir(os.path.join(self.driver.state, "csi/mounts")) == []
        wait_for(clean, PATIENCE, "nothing left")

    def test_davitd_killed_below_a_volume_comes_back(self):
        self.ok(self.driver.publish(self.image, self.target))
        self.assertTrue(self.works())
        for _ in range(2):
            old = self.driver.kill_daemon()
            wait_for(lambda: self.driver.daemon_pid() not in (0, old), PATIENCE, "another davitd")
            # First the health: content that the kernel has cached can be read from a dead mount too.
            wait_for(lambda: self.driver.problems(self.target) == [], PATIENCE, "health")
            self.assertTrue(self.works())
            self.ok(self.driver.publish(self.image, self.target))
        self.ok(self.driver.unpublish(self.target))
        self.assert_nothing_left()

    def test_health_and_unpublish_while_davitd_cannot_start(self):
        self.ok(self.driver.publish(self.image, self.target))
        with open(self.driver.broken, "w", encoding="utf-8"):
            pass
        self.driver.kill_daemon()
        wait_for(lambda: not self.works(), PATIENCE, "the mount's death")
        (problem,) = self.driver.problems(self.target)
        self.assertEqual((problem["status"], problem["reason"]), ("INACCESSIBLE", "DaemonUnavailable"))
        self.ok(self.driver.unpublish(self.target))
        self.assertFalse(os.path.lexists(self.target))
        os.unlink(self.driver.broken)
        self.assert_nothing_left()  # what davitd had mounted goes when it is back
        self.ok(self.driver.publish(self.image, self.target))
        self.assertTrue(self.works())
        self.ok(self.driver.unpublish(self.target))
        self.assert_nothing_left()

    def test_davit_csi_killed_above_a_volume(self):
        self.ok(self.driver.publish(self.image, self.target))
        self.driver.kill()
        self.assertTrue(self.works(), "the volume does not need the driver")
        self.driver.start().wait_ready()
        self.assertTrue(self.works())
        self.ok(self.driver.publish(self.image, self.target))
        self.ok(self.driver.unpublish(self.target))
        self.assert_nothing_left()

    def test_both_killed(self):
        self.ok(self.driver.publish(self.image, self.target))
        self.driver.kill()
        self.driver.kill_daemon()
        wait_for(lambda: not self.works(), PATIENCE, "the mount's death")
        self.driver.start().wait_ready()
        wait_for(self.works, PATIENCE, "the volume")
        self.ok(self.driver.unpublish(self.target))
        self.assert_nothing_left()

    def begin_publish_and_kill(self):
        """Kills the driver while a publish waits for a registry that says nothing."""
        self.registry.process.send_signal(signal.SIGSTOP)
        try:
            words = [f"{BIN}/davit-csi-client", "--endpoint", self.driver.endpoint, *self.driver.publish_words(self.image, self.target)]
            with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as client:
                wait_for(lambda: glob.glob(os.path.join(self.driver.state, "csi/journal/*")), PATIENCE, "the journal's entry")
                self.driver.kill()
                _, told = client.communicate(timeout=PATIENCE)
                self.assertEqual(client.returncode, 1, told)
        finally:
            self.registry.process.send_signal(signal.SIGCONT)
        entries = glob.glob(os.path.join(self.driver.state, "csi/journal/*"))
        self.assertEqual(len(entries), 1, "begun, not published")

    def test_davit_csi_killed_within_a_publish_that_is_tried_again(self):
        self.begin_publish_and_kill()
        self.driver.start().wait_ready()
        self.ok(self.driver.publish(self.image, self.target))
        self.assertTrue(self.works())
        self.ok(self.driver.unpublish(self.target))
        self.assert_nothing_left()

    def test_davit_csi_killed_within_a_publish_that_is_given_up(self):
        self.begin_publish_and_kill()
        self.driver.start().wait_ready()
        self.ok(self.driver.unpublish(self.target))
        self.assert_nothing_left()

    def test_davit_csi_killed_at_random_moments(self):
        """Whatever step a kill hits, the same call after the restart finishes the work."""
        start = time.monotonic()
        self.ok(self.driver.publish(self.image, self.target))
        took = time.monotonic() - start
        self.ok(self.driver.unpublish(self.target))
        rnd = random.Random(7)
        for life in range(12):
            words = self.driver.publish_words(self.image, self.target)
            if life % 2 == 1:
                self.ok(self.driver.publish(self.image, self.target))
                words = ["unpublish", "--volume-id", "v", "--target", self.target]
            with subprocess.Popen([f"{BIN}/davit-csi-client", "--endpoint", self.driver.endpoint, *words],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
                time.sleep(rnd.uniform(0, took))
                self.driver.kill()
            self.driver.start().wait_ready()
            if life % 4 < 2:  # the same call again; else the opposite one
                self.ok(self.driver.call(*words))
            if life % 2 == 0 and life % 4 < 2:
                self.assertTrue(self.works())
            self.ok(self.driver.unpublish(self.target))
            self.assert_nothing_left()


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
