#!/usr/bin/env python3
"""The wall clock of davitd jumps by a day and back; the machine's own clock stays as it is."""
import base64
import glob
import json
import os
import sys
import threading
import time
import unittest

from faults_fixture import FaultCase, make_files

DAY = 86400


class ClockJumpTest(FaultCase):
    FILES = make_files(24, 600_000)
    REGISTRY = ("--auth", "bearer", "--token-seconds", "2", "--user", "davit:secret")

    def setUp(self):
        super().setUp()
        found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        self.assertTrue(found, "libfaketime is missing: scripts/setup test installs it")
        self.offset = os.path.join(self.dir, "offset")
        self.jump(0)
        self.fake = {"LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": self.offset, "FAKETIME_NO_CACHE": "1",
                     "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.start_daemon(env=self.fake)

    def jump(self, seconds):
        """Sets davitd's wall clock to the real time plus so much; it sees it at its next look."""
        with open(self.offset + ".new", "w", encoding="utf-8") as text:
            text.write(f"{seconds:+d}\n")
        os.rename(self.offset + ".new", self.offset)

    def mount_with_login(self):
        login = base64.b64encode(b"davit:secret").decode()
        return self.mount(registry_auth=json.dumps({"auths": {self.registry.host: {"auth": login}}}))

    def mounted_at(self):
        return self.daemon.call("GET", "/api/v1/mounts/m")["mounted_at_unix"]

    def test_the_daemon_sees_the_jump(self):
        """The proof that the tests below test something."""
        self.jump(DAY)
        self.mount_with_login()
        self.assertAlmostEqual(self.mounted_at(), time.time() + DAY, delta=60)
        self.daemon.call("DELETE", "/api/v1/mounts/m")
        self.jump(-DAY)
        self.mount_with_login()
        self.assertAlmostEqual(self.mounted_at(), time.time() - DAY, delta=60)

    def test_forward_and_back_while_readers_run(self):
        point = self.mount_with_login()
        self.registry.fault("drip", bytes_per_second=800_000)
        stop = threading.Event()

        def jumps():
            for seconds in (DAY, 0, -DAY, 30 * DAY, 0, -365 * DAY, DAY, 0):
                self.jump(seconds)
                if stop.wait(0.5):
                    break
        thread = threading.Thread(target=jumps)
        thread.start()
        try:
            took = self.check_all(point, readers=8, seconds=60)
        finally:
            stop.set()
            thread.join()
        self.assertGreater(took, 2)  # the life of a token
        self.assertLess(took, 30)
        self.assertEqual(self.log_lines("a request of the kernel failed"), [])
        self.assertEqual(self.log_lines("a request of the kernel hangs"), [])
        # Tokens are renewed as they end, neither at once nor never.
        tokens = len(self.registry.requests("/token"))
        self.assertLess(tokens, 2 + took)

    def test_outages_and_limits_last_as_long_as_they_last(self):
        point = self.mount_with_login()
        names = self.cold_names()
        for seconds in (DAY, -DAY):
            with self.subTest(seconds):
                self.jump(0)
                self.registry.fault("status", times=1, status=429, retry_after=2)
                timer = threading.Timer(0.5, self.jump, [seconds])
                timer.start()
                began = time.monotonic()
                self.check_direct(point, next(names))
                took = time.monotonic() - began
                timer.join()
                self.assertGreater(took, 1.8)  # a jump ends no wait
                self.assertLess(took, 8)  # and makes none longer
                self.registry.away()
                back = threading.Timer(1, self.registry.away, [False])
                back.start()
                self.jump(2 * seconds)
                self.check_direct(point, next(names))
                back.join()

    def test_restart_in_another_year(self):
        point = self.mount_with_login()
        self.check_all(point)
        self.daemon.stop()
        for seconds in (400 * DAY, -400 * DAY):
            self.jump(seconds)
            self.daemon.start(env=self.fake)
            self.check_all(point)
            self.daemon.stop()


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
