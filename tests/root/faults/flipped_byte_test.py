#!/usr/bin/env python3
"""One byte of a blob arrives changed: fetched anew once, never delivered, never kept."""
import os
import re
import sys
import time
import unittest

from daemon_fixture import wait_for
from faults_fixture import FaultCase, find_in_blobs, read, read_direct

NAME = "data/5"
AT = 300_000  # of the file


class FlippedByteTest(FaultCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.blob, at = find_in_blobs(cls.layout, cls.FILES[NAME][AT - 20:AT + 20])
        cls.at = at + 20  # of the blob

    def flip(self, registry=None, times=-1):
        (registry or self.registry).fault("flip_byte", times=times, path=self.blob, offset=self.at)

    def asked(self, registry=None):
        """How often the byte was asked for."""
        return len((registry or self.registry).requests(self.blob, covering=self.at))

    def direct(self, point):
        return read_direct(os.path.join(point, NAME), AT // 4096 * 4096)

    def check_direct_fails(self, point):
        with self.assertRaises(OSError) as raised:
            self.direct(point)
        self.assertEqual(raised.exception.errno, 5)

    def check_right(self, point):
        start = AT // 4096 * 4096
        self.assertEqual(self.direct(point), self.FILES[NAME][start:start + 4096])

    def check_not_cached(self):
        """Neither the changed bytes nor any others of their place are in the cache."""
        right = self.FILES[NAME][AT - 16:AT + 16]
        wrong = right[:16] + bytes([right[16] ^ 1]) + right[17:]
        for base, _, names in os.walk(os.path.join(self.dir, "state/cache")):
            for name in names:
                content = read(os.path.join(base, name))
                self.assertNotIn(wrong, content, name)
                self.assertNotIn(right, content, name)

    def test_every_time(self):
        self.start_daemon()
        point = self.mount()
        self.flip()
        self.check_direct_fails(point)
        self.assertEqual(self.asked(), 2)  # and once anew
        self.check_not_cached()
        self.check_direct_fails(point)  # nothing is remembered: the next read asks again
        self.assertEqual(self.asked(), 4)
        self.check_error(os.path.join(point, NAME))
        for name in self.FILES:
            if name != NAME:
                self.check_file(point, name)
        self.check_not_cached()
        once = self.log_lines("a chunk arrived damaged; it is fetched once more")
        twice = self.log_lines("damaged twice, not delivered and not cached")
        self.assertEqual(len(once), len(twice))
        for line in once + twice:
            self.assertIn("blob=" + self.blob, line)
            self.assertRegex(line, r"chunk=\d+")
            self.assertIn("from=http://" + self.registry.host, line)
        self.assertEqual(len({re.search(r"chunk=(\d+)", line)[1] for line in once}), 1)
        failed = self.log_lines("a request of the kernel failed")[0]
        self.assertIn("arrived damaged twice", failed)
        self.registry.clear()  # heals without a remount
        self.check_right(point)
        self.check_all(point)

    def test_the_first_time_only(self):
        self.start_daemon()
        point = self.mount()
        self.flip(times=1)
        self.check_right(point)
        self.check_hit()
        self.assertEqual(self.asked(), 2)
        self.assertEqual(len(self.log_lines("it is fetched once more")), 1)
        self.assertEqual(self.log_lines("damaged twice"), [])
        self.check_all(point)
        self.assertEqual(self.asked(), 2)

    def test_in_mid_read_of_everything(self):
        self.start_daemon(cache__fill="true")
        self.flip(times=1)
        point = self.mount(fill=True)
        self.check_all(point)
        self.check_hit()

    def test_filling_leaves_out_what_is_damaged(self):
        self.start_daemon(cache__fill="true")
        self.flip()
        point = self.mount(fill=True)

        def all_but_one():
            info = self.daemon.call("GET", "/api/v1/mounts/m")
            return info["bytes_ready"] >= info["bytes_total"] - 65536 and info
        info = wait_for(all_but_one, 20, "all chunks but one")
        self.assertFalse(info["complete"])
        self.check_not_cached()
        self.registry.clear()
        self.check_all(point)
        self.assertTrue(self.daemon.call("GET", "/api/v1/mounts/m")["complete"])

    def test_after_a_restart_nothing_wrong_is_there(self):
        self.start_daemon()
        point = self.mount()
        self.flip()
        self.check_direct_fails(point)
        self.daemon.kill()
        self.daemon.start()
        self.check_direct_fails(point)
        self.check_not_cached()
        self.registry.clear()
        self.check_all(point)

    def test_in_the_metadata(self):
        """The image's own metadata is checked before it is mounted."""
        import json
        digests = []
        with open(os.path.join(self.layout, "index.json"), encoding="utf-8") as index:
            todo = [one["digest"] for one in json.load(index)["manifests"]]
        while todo:
            with open(os.path.join(self.layout, "blobs/sha256", todo.pop()[7:]), encoding="utf-8") as text:
                document = json.load(text)
            todo += [one["digest"] for one in document.get("manifests", [])]
            digests += [one["digest"] for one in document.get("layers", [])]
        metadata = digests[-1][7:]
        self.assertNotEqual(metadata, self.blob)
        self.start_daemon()
        self.registry.fault("flip_byte", path=metadata, offset=200)
        _, error = self.refuse_mount()
        self.assertEqual(error["code"], "data_loss", error)
        self.assertIn(metadata, error["message"])
        self.assertEqual(len(self.registry.requests(metadata)), 2)
        self.registry.clear()
        self.registry.fault("flip_byte", times=1, path=metadata, offset=200)
        self.check_all(self.mount())
        self.check_hit()


class MirrorTest(FlippedByteTest):
    """The same with a mirror in hosts.toml before the registry."""

    def setUp(self):
        super().setUp()
        self.mirror = self.start_registry()
        directory = os.path.join(self.dir, "hosts", self.registry.host)
        os.makedirs(directory)
        with open(os.path.join(directory, "hosts.toml"), "w", encoding="utf-8") as hosts:
            hosts.write(f'server = "http://{self.registry.host}"\n'
                        f'[host."http://{self.mirror.host}"]\n  capabilities = ["pull", "resolve"]\n')

    def start_daemon(self, *options, **more):
        return super().start_daemon(*options, registry__hosts_dir=os.path.join(self.dir, "hosts"), **more)

    def test_a_damaged_mirror(self):
        self.start_daemon()
        point = self.mount()
        self.flip(self.mirror)
        self.check_right(point)
        self.assertEqual((self.asked(self.mirror), self.asked(self.registry)), (1, 1))
        line = self.log_lines("it is fetched once more")[0]
        self.assertIn("from=http://" + self.mirror.host, line)
        self.check_all(point)
        self.assertEqual((self.asked(self.mirror), self.asked(self.registry)), (1, 1))

    def test_both_damaged(self):
        self.start_daemon(cache__fill="true")
        point = self.mount()
        self.flip(self.mirror)
        self.flip(self.registry)
        self.check_direct_fails(point)
        self.assertEqual((self.asked(self.mirror), self.asked(self.registry)), (1, 1))
        self.check_not_cached()
        self.assertIn("from=http://" + self.registry.host, self.log_lines("damaged twice")[0])
        self.registry.clear()  # one of the two is enough
        self.check_right(point)
        self.check_all(point)

    def test_a_mirror_that_is_away(self):
        self.start_daemon()
        point = self.mount()
        self.mirror.away()
        self.check_all(point)
        self.assertTrue(self.log_lines("an endpoint failed and is skipped for a while"))
        self.assertGreater(len(self.registry.requests(self.blob)), 0)

    def test_a_damaged_mirror_and_no_registry(self):
        self.start_daemon(scheduler__demand_patience="2s", scheduler__backoff_max="300ms")
        point = self.mount()
        self.flip(self.mirror)
        self.registry.away()
        began = time.monotonic()
        self.check_direct_fails(point)
        self.assertLess(time.monotonic() - began, 10)  # one patience, not one for each try
        self.check_not_cached()
        self.registry.away(False)
        self.check_right(point)

    # What the base class shows with one registry alone.
    test_every_time = test_the_first_time_only = test_in_mid_read_of_everything = None
    test_filling_leaves_out_what_is_damaged = test_after_a_restart_nothing_wrong_is_there = test_in_the_metadata = None


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
