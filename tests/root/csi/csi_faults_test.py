#!/usr/bin/env python3
"""davit-csi over a registry that misbehaves: error codes, health, and the ids on log lines."""
import os
import re
import subprocess
import sys
import unittest

from csi_fixture import Driver
from daemon_fixture import is_mounted, wait_for, workspace
from faults_fixture import FakeRegistry, find_in_blobs, make_files, make_layout, read_direct

FILES = make_files(4, 600_000)
NAME = "data/2"
AT = 300_000  # of the file
CONFIG = """
[cache]
fill = false
reserve_free_bytes = "0"
[scheduler]
demand_patience = "2s"
backoff_max = "300ms"
[registry]
connect_timeout = "1s"
stall_timeout = "1s"
"""


class CsiFaultCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        space = workspace()
        shared = space.__enter__()
        cls.addClassCleanup(space.__exit__, None, None, None)
        cls.layout = make_layout(shared, FILES, "--chunk-size", "64KiB")
        cls.blob, at = find_in_blobs(cls.layout, FILES[NAME][AT - 20:AT + 20])
        cls.at = at + 20

    def setUp(self):
        context = workspace()
        self.dir = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.registry = FakeRegistry(self.layout)
        self.addCleanup(self.registry.stop)
        os.makedirs(os.path.join(self.dir, "pod"))
        self.target = os.path.join(self.dir, "pod/mount")

    def start(self, config=CONFIG):
        self.driver = Driver(self.dir, config)
        self.addCleanup(self.driver.end)
        self.driver.start().wait_ready()

    def ok(self, done):
        self.assertEqual(done.returncode, 0, done.stderr + "\n" + self.driver.log_tail())

    def read(self):
        """One request of the kernel for the byte in question."""
        return read_direct(os.path.join(self.target, NAME), AT // 4096 * 4096)

    def check_read_fails(self):
        with self.assertRaises(OSError) as raised:
            self.read()
        self.assertEqual(raised.exception.errno, 5)

    def lines(self, text):
        return [line for line in self.driver.log_text().splitlines() if text in line]


class LogIdsTest(CsiFaultCase):
    def test_a_faulty_read_can_be_traced(self):
        self.start()
        self.ok(self.driver.call("--request-id", "kubelet-42", *self.driver.publish_words(self.registry.image, self.target, "vol-7")))
        # The call's id is on the lines of both programs, with volume and image.
        mounted = self.lines(" mounted ")
        self.assertEqual(len(mounted), 1, self.driver.log_tail())
        for line in mounted + self.lines("volume published"):
            for field in ("request=kubelet-42", "volume=vol-7", "image=" + self.registry.image):
                self.assertIn(field, line)
        self.assertTrue(any("request=kubelet-42" in line and "path=/api/v1/mounts" in line for line in self.lines("API call")))
        self.registry.fault("flip_byte", path=self.blob, offset=self.at)
        self.check_read_fails()
        related = []
        for text in ("a chunk arrived damaged", "damaged twice", "a request of the kernel failed"):
            found = self.lines(text)
            self.assertTrue(found, text)
            related += found
        for line in related:
            for field in ("volume=vol-7", "image=" + self.registry.image, "mount=csi-"):
                self.assertIn(field, line)
            self.assertNotIn("request=", line)  # it is no part of the call that mounted it
            for key in ("volume", "image", "mount"):
                self.assertEqual(len(re.findall(rf" {key}=", line)), 1, line)
        for line in related[:2]:
            self.assertIn("blob=" + self.blob, line)
        # A call that fails names itself, too.
        refused = self.driver.call("--request-id", "kubelet-43", *self.driver.publish_words(self.registry.image + "x", self.target + "2", "vol-8"))
        self.assertNotEqual(refused.returncode, 0)
        failed = self.lines("CSI call failed")[-1]
        for field in ("request=kubelet-43", "call=NodePublishVolume", "volume=vol-8"):
            self.assertIn(field, failed)


class HealthTest(CsiFaultCase):
    def check_degraded(self, *words):
        (problem,) = self.driver.problems(self.target)
        self.assertEqual((problem["status"], problem["reason"]), ("DEGRADED", "ReadsFail"), problem)
        for word in words:
            self.assertIn(word, problem["message"])

    def test_damage_is_reported_until_it_heals(self):
        self.start()
        self.ok(self.driver.publish(self.registry.image, self.target))
        self.assertEqual(self.driver.problems(self.target), [])
        self.registry.fault("flip_byte", path=self.blob, offset=self.at)
        self.check_read_fails()
        self.check_degraded("damaged twice", self.blob)
        read_direct(os.path.join(self.target, "data/0"), 0)  # others can be read; that one still not
        self.check_degraded("damaged twice")
        self.registry.clear()
        self.read()
        self.assertEqual(self.driver.problems(self.target), [])

    def test_a_registry_that_is_away_is_reported_until_it_is_back(self):
        self.start()
        self.ok(self.driver.publish(self.registry.image, self.target))
        self.registry.away()
        self.check_read_fails()
        self.check_degraded(self.registry.host)
        self.registry.away(False)
        # Any bytes that come from there show that it is back.
        wait_for(lambda: read_direct(os.path.join(self.target, "data/0"), 0), 20, "a read")
        self.assertEqual(self.driver.problems(self.target), [])


class LogFileTest(CsiFaultCase):
    ROTATE, CALLS = 64 << 10, 160  # one refused call is about 1 KiB in each file

    def files(self, name):
        """The texts of a log and of what it was before, the oldest first."""
        path = os.path.join(self.dir, name)
        names = [path] + [f"{path}.{number}" for number in range(1, 9) if os.path.exists(f"{path}.{number}")]
        texts = []
        for one in reversed(names):
            with open(one, encoding="utf-8") as text:
                texts.append(text.read())
        return texts

    def test_each_process_writes_and_rotates_its_own(self):
        path = os.path.join(self.dir, "davit.log")
        self.start(CONFIG + f'[log]\nfile = "{path}"\nrotate_bytes = "{self.ROTATE}"\nkeep_files = 8\n')
        self.ok(self.driver.publish(self.registry.image, self.target))
        for number in range(self.CALLS):
            done = self.driver.publish(f"{self.registry.host}/none-{number:03}-{'x' * 150}:v1", self.target + "-none", "none")
            self.assertNotEqual(done.returncode, 0)
        numbers = list(range(self.CALLS))
        for name, own, others in (("davit.log", ("davit-csi runs ", "CSI call failed "), ("davitd runs ", " mount failed ")),
                                  ("davit.davitd.log", ("davitd runs ", " mount failed "), ("davit-csi runs ", "CSI call failed "))):
            texts = self.files(name)
            self.assertGreater(len(texts), 2, name)
            for text in texts:
                self.assertLess(len(text), self.ROTATE + 4096, name)
            for text in texts[:-1]:
                self.assertGreater(len(text), self.ROTATE - 4096, name)  # not before it is full
            lines = "".join(texts).splitlines()
            self.assertEqual(len([line for line in lines if own[0] in line]), 1, name)
            # Each call is there once, in its order: nothing got lost between two files.
            failed = [int(re.search(r"/none-(\d+)-", line)[1]) for line in lines if own[1] in line]
            self.assertEqual(failed, numbers, name)
            self.assertEqual([line for line in lines if any(word in line for word in others)], [], name)
        self.assertIn(" mounted ", "".join(self.files("davit.davitd.log")))


class ErrorCodesTest(CsiFaultCase):
    """The table of docs/csi.md, with the real programs. After final codes nothing is left behind."""

    def refuse(self, image, *more):
        done = self.driver.publish(image, self.target, "v", *more)
        self.assertNotEqual(done.returncode, 0, "it must fail")
        self.assertFalse(is_mounted(self.target))
        code = re.search(r"[A-Z]{2,}(_[A-Z]+)*", done.stderr)
        self.assertIsNotNone(code, done.stderr)
        return code[0], done.stderr

    def check(self, code, image, *words, more=(), final=True):
        got, text = self.refuse(image, *more)
        self.assertEqual(got, code, text)
        for word in words:
            self.assertIn(word, text)
        journal = os.listdir(os.path.join(self.driver.state, "csi/journal"))
        if final:
            self.assertEqual(journal, [], text)
            self.assertFalse(os.path.lexists(self.target))
        else:
            self.assertEqual(len(journal), 1, text)
        self.ok(self.driver.unpublish(self.target))
        self.assertEqual(os.listdir(os.path.join(self.driver.state, "csi/journal")), [])

    def test_missing(self):
        self.start()
        self.check("NOT_FOUND", self.registry.image + "-none", "v1-none")
        repository = self.registry.image.rsplit(":", 1)[0]
        self.check("NOT_FOUND", f"{repository}@sha256:{'0' * 64}", "0" * 64)
        # The manifest is there and what it names is not.
        self.registry.fault("status", path="/blobs/", status=404)
        self.check("NOT_FOUND", self.registry.image)

    def test_refused(self):
        self.start()
        self.registry.fault("status", path="/v2/", status=401)
        self.check("UNAUTHENTICATED", self.registry.image, self.registry.host)
        self.registry.clear()
        self.registry.fault("status", path="/v2/", status=403)
        self.check("PERMISSION_DENIED", self.registry.image, self.registry.host)
        self.registry.clear()
        self.ok(self.driver.publish(self.registry.image, self.target))

    def test_away(self):
        self.start()
        self.registry.away()
        self.check("UNAVAILABLE", self.registry.image, self.registry.host, final=False)
        self.registry.away(False)
        self.registry.fault("status", path="/manifests/", status=503)
        self.check("UNAVAILABLE", self.registry.image, final=False)
        self.registry.clear()
        self.ok(self.driver.publish(self.registry.image, self.target))

    def test_lying(self):
        self.start()
        self.registry.fault("flip_byte", path="/manifests/", offset=40)
        self.check("DATA_LOSS", self.registry.image)
        self.registry.clear()
        self.ok(self.driver.publish(self.registry.image, self.target))

    def test_wrong_arguments(self):
        self.start()
        self.check("INVALID_ARGUMENT", "UPPER CASE", "image")
        self.check("INVALID_ARGUMENT", self.registry.image, "nonsense", more=("--attribute", "nonsense=1"))
        self.check("INVALID_ARGUMENT", f"oci:{self.layout}:v1", "oci")

    def test_a_disk_without_room(self):
        disk = os.path.join(self.dir, "state/images")  # what a mount needs before its first byte
        os.makedirs(disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", disk], check=True)
        self.start()
        with open(os.path.join(disk, "ballast"), "wb", buffering=0) as ballast, self.assertRaises(OSError):
            while True:
                ballast.write(b"x" * 4096)
        self.check("RESOURCE_EXHAUSTED", self.registry.image, "No space", final=False)
        os.unlink(os.path.join(disk, "ballast"))
        self.ok(self.driver.publish(self.registry.image, self.target))


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
