#!/usr/bin/env python3
"""davit mount --foreground while it waits, davit stat of a mount."""
import json
import os
import signal
import subprocess
import sys
import time
import unittest

from daemon_fixture import DAVIT, davit, is_mounted, wait_for
from faults_fixture import FaultCase, read


class ForegroundTest(FaultCase):
    def start(self, *words):
        self.point = os.path.join(self.dir, "mnt")
        os.makedirs(self.point)
        self.err = open(os.path.join(self.dir, "err"), "w+", encoding="utf-8")  # closed in the clean-up
        self.addCleanup(self.err.close)
        env = {k: v for k, v in os.environ.items() if not k.startswith("DAVIT_")}
        env.update(DAVIT_NODE_STATE_DIR=self.dir + "/state", DAVIT_API_SOCKET=self.dir + "/s")
        self.process = subprocess.Popen([DAVIT, "mount", self.registry.image, self.point, "--foreground", "--plain-http", *words],
                                        stdout=subprocess.PIPE, stderr=self.err, text=True, env=env)
        self.addCleanup(self.process.stdout.close)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)

    def interrupt(self, number):
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(20)
        took = time.monotonic() - began
        with open(self.err.name, encoding="utf-8") as text:
            return code, took, text.read()

    def check_nothing_left(self):
        self.assertFalse(is_mounted(self.point))
        self.assertFalse(os.path.exists(self.dir + "/s"))
        self.assertEqual(os.listdir(self.dir + "/state/mounts"), [])

    def check_waiting(self, number, *words):
        self.start(*words)
        wait_for(lambda: self.registry.requests("/v2/"), 20, "a request")
        code, took, text = self.interrupt(number)
        self.assertEqual(code, 1, text)
        self.assertIn("stopped by a signal", text)
        self.assertLess(took, 1.5)  # one second, and the machine's own
        self.check_nothing_left()

    def test_a_registry_that_does_not_answer(self):
        self.registry.fault("hang", path="/v2/")
        self.check_waiting(signal.SIGINT)

    def test_a_registry_that_drips(self):
        self.registry.fault("drip", path="/manifests/", bytes_per_second=10)
        self.check_waiting(signal.SIGTERM)

    def test_content_that_drips(self):
        """Mounted, but not as ready as asked for."""
        metadata = 200_000  # the blob of content comes after it
        self.registry.fault("drip", path=self.content_blob(), bytes_per_second=metadata // 100)
        self.start("--ready", "complete")
        wait_for(lambda: is_mounted(self.point), 20, "the mount")
        code, took, text = self.interrupt(signal.SIGINT)
        self.assertEqual(code, 1, text)
        self.assertLess(took, 1.5)
        self.check_nothing_left()

    def test_the_limit_of_who_waits(self):
        """The mount ends with the process that serves it."""
        self.registry.fault("drip", path=self.content_blob(), bytes_per_second=2000)
        self.start("--ready", "complete", "--timeout", "3s")
        self.assertEqual(self.process.wait(20), 1)
        with open(self.err.name, encoding="utf-8") as text:
            self.assertRegex(text.read(), r"is not complete after 3s: .*nothing is left behind")
        self.check_nothing_left()

    def content_blob(self):
        blobs = os.path.join(self.layout, "blobs/sha256")
        return max(os.listdir(blobs), key=lambda name: os.path.getsize(os.path.join(blobs, name)))


class WaitTest(FaultCase):
    """davit mount --ready complete with the registry away: it says why, and waits no longer than told."""

    # Far longer than the test: what is shown is each try, not the scheduler's last word.
    SETTINGS = {**FaultCase.SETTINGS, "scheduler__background_patience": "10m", "scheduler__backoff_max": "300ms"}

    def wait_for_all(self, *words):
        return davit("mount", self.registry.image, os.path.join(self.dir, "m"), "--id", "m", "--no-fill", "--plain-http",
                     "--ready", "complete", "--socket", self.daemon.socket, *words, ok=False)

    def info(self):
        return self.daemon.call("GET", "/api/v1/mounts/m")

    def check_said_why(self, refused, *reasons):
        self.assertEqual(refused.returncode, 1, refused.stderr)
        self.assertEqual(refused.stdout, "")
        said, last = refused.stderr.splitlines()
        self.assertRegex(said, r"^davit: m waits: fetching ahead fails: ")
        self.assertRegex(last, r" is not complete after 3s: it is mounted with [\d.]+ \S+ of [\d.]+ \S+ here; fetching ahead fails: ")
        self.assertIn("davit umount m", last)
        for text in (said, last):
            for reason in reasons:
                self.assertIn(reason, text)

    def check_goes_on(self):
        info = self.info()
        self.assertEqual((info["state"], info["complete"]), ("mounting", False))
        self.assertIn("fetching ahead fails: ", info["error"])
        self.assertNotIn("error_at_unix", info)
        self.assertIn("fetching ahead fails: ", davit("ps", "--socket", self.daemon.socket).stdout)

    def check_gets_there(self):
        wait_for(lambda: self.info()["complete"] and self.info()["state"] == "mounted", 30, "all of it")
        self.assertNotIn("error", self.info())
        self.assertNotIn("waits", self.wait_for_all("--timeout", "20s").stderr)
        self.check_all(os.path.join(self.dir, "m"))

    def test_one_that_is_mounted(self):
        self.start_daemon()
        self.mount(fill=False)
        self.registry.away()
        self.check_said_why(self.wait_for_all("--timeout", "3s"), f"127.0.0.1:{self.registry.port}")
        self.check_goes_on()
        self.registry.away(False)
        self.check_gets_there()

    def test_a_new_one(self):
        self.start_daemon()
        os.makedirs(os.path.join(self.dir, "m"))
        self.registry.fault("status", status=503, path=self.content_blob())  # metadata is another blob
        self.check_said_why(self.wait_for_all("--timeout", "3s"), "503")
        self.check_goes_on()
        davit("umount", "m", "--socket", self.daemon.socket)
        self.assertFalse(is_mounted(os.path.join(self.dir, "m")))
        self.registry.clear()
        self.assertEqual(self.wait_for_all("--timeout", "30s").returncode, 0)
        self.check_gets_there()

    def content_blob(self):
        blobs = os.path.join(self.layout, "blobs/sha256")
        return max(os.listdir(blobs), key=lambda name: os.path.getsize(os.path.join(blobs, name)))

    def test_a_time_that_is_none(self):
        self.start_daemon()
        for text in ("0", "5", "soon", "-3s"):
            refused = self.wait_for_all("--timeout=" + text)
            self.assertEqual(refused.returncode, 2, text)
            self.assertIn("--timeout", refused.stderr)


class StatTest(FaultCase):
    def stat(self, target, *words, ok=True):
        return davit("stat", target, "--socket", self.daemon.socket, *words, ok=ok)

    def test_by_path_and_id(self):
        self.start_daemon()
        point = self.mount(volume="vol-1")
        read(os.path.join(point, "data/3"))
        for target in (point, "m"):
            info = json.loads(self.stat(target, "--output", "json").stdout)
            self.assertEqual((info["id"], info["volume"], info["mountpoint"]), ("m", "vol-1", point))
            self.assertGreater(info["waited_reads"], 0)
            self.assertGreaterEqual(info["reads"], info["waited_reads"])
            self.assertGreaterEqual(info["read_bytes"], len(self.FILES["data/3"]))
            self.assertEqual(info["read_errors"], 0)
        text = self.stat("m").stdout
        self.assertRegex(text, r"(?m)^health +good$")
        self.assertRegex(text, r"(?m)^local .* %\)$")
        self.registry.away()
        self.daemon.call("PUT", "/api/v1/daemon", {"log_level": "info"})
        for name in ("none", "/nowhere"):
            refused = self.stat(name, ok=False)
            self.assertNotEqual(refused.returncode, 0)
        self.assertIn("davit ps", self.stat("/nowhere", ok=False).stderr)

    def test_an_image_is_still_an_image(self):
        self.start_daemon()
        self.assertIn("files", self.stat(f"oci:{self.layout}:v1").stdout)

    def test_reads_that_fail_show(self):
        self.start_daemon(scheduler__demand_patience="1s", scheduler__backoff_max="300ms")
        point = self.mount()
        self.registry.away()
        self.check_error(os.path.join(point, "data/3"))
        self.assertRegex(self.stat("m").stdout, r"(?m)^health +reading inode \d+ at \d+ failed: .*\(20\d\d-")
        self.assertIn("reading inode", davit("ps", "--socket", self.daemon.socket).stdout)
        self.registry.away(False)
        self.check_file(point, "data/4")
        self.assertRegex(self.stat("m").stdout, r"(?m)^health +good$")


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
