#!/usr/bin/env python3
"""An image that was read completely comes back after a restart of davitd without its registry:
images of the real nydus-image (tests/golden/nydus) as well as ours.
"""
import contextlib
import glob
import hashlib
import json
import os
import stat
import sys
import time
import unittest

from daemon_fixture import Daemon, Registry, davit, is_mounted, make_rafs, wait_for, workspace
from rafs_layout import rafs_layout

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../integration/golden"))
import gzip_chunks  # noqa: E402

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../golden/nydus")


class CompleteImagesTest(unittest.TestCase):
    def setUp(self):
        self.cleanup = contextlib.ExitStack()
        self.addCleanup(self.cleanup.close)
        self.dir = self.cleanup.enter_context(workspace())
        self.registry = Registry(self.dir).start()
        self.cleanup.callback(self.registry.stop)
        self.image = f"{self.registry.host}/own/image:v1"
        self.point = os.path.join(self.dir, "mnt")
        os.makedirs(self.point)
        # Nothing is fetched but what is read.
        self.daemon = Daemon(self.dir, cache__fill="false", scheduler__demand_patience="2s")
        self.cleanup.callback(self.daemon.stop)

    def push_golden(self, name):
        folder = os.path.join(GOLDEN, name)
        if name == "gzip":
            folder = os.path.join(self.dir, "gzip")
            gzip_chunks.convert(os.path.join(GOLDEN, "none-blake3-0x1000"), folder)
        rafs_layout(os.path.join(self.dir, "layout"), os.path.join(folder, "image.boot"), folder)
        davit("copy", f"oci:{self.dir}/layout:v1", self.image, "--plain-http")

    def content(self):
        """path -> mode, size and digest of everything in the mount."""
        out = {}
        for base, folders, files in os.walk(self.point):
            for name in folders + files:
                path = os.path.join(base, name)
                st = os.lstat(path)
                item = [st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns]
                if stat.S_ISREG(st.st_mode):
                    with open(path, "rb") as handle:
                        item.append(hashlib.sha256(handle.read()).hexdigest())
                out[os.path.relpath(path, self.point)] = item
        return out

    def read_all_then_restart(self, kill):
        self.daemon.start()
        before = self.daemon.mount("m", self.image, self.point, plain_http=True)
        self.assertFalse(before["complete"])
        first = self.content()
        wait_for(lambda: self.daemon.call("GET", "/api/v1/mounts/m")["complete"], 20, "completeness")
        self.registry.stop()
        if kill:
            # What became local a moment before a kill may be fetched again: it has to be durable.
            wait_for(lambda: glob.glob(os.path.join(self.dir, "state/images/*/manifest*")), 20, "durable metadata")
            time.sleep(3)  # three times the interval of the cache's ready bits
            self.daemon.kill()
        else:
            self.assertEqual(self.daemon.stop(), 0)
            self.assertFalse(is_mounted(self.point))
        self.daemon.start()
        after = self.daemon.call("GET", "/api/v1/mounts/m")
        self.assertEqual((after["state"], after["manifest_digest"]), ("mounted", before["manifest_digest"]), self.daemon.log_text()[-3000:])
        self.assertTrue(after["complete"], after)  # before anything is read
        self.assertEqual(self.content(), first)
        self.daemon.call("DELETE", "/api/v1/mounts/m")
        return first

    def check_golden(self, name, kill=False, expected="expected.json"):
        self.push_golden(name)
        found = self.read_all_then_restart(kill)
        with open(os.path.join(GOLDEN, expected), encoding="utf-8") as handle:
            expected = json.load(handle)
        self.assertEqual(found.keys(), expected.keys())
        for path, item in found.items():
            if stat.S_ISREG(item[0]):
                self.assertEqual(item[4], expected[path][6], path)

    def test_nydus_zstd(self):
        self.check_golden("zstd-blake3-0x1000")

    def test_nydus_lz4_after_a_kill(self):
        self.check_golden("lz4_block-sha256-0x10000", kill=True)

    def test_nydus_batch(self):
        self.check_golden("batch")

    def test_nydus_dictionary(self):
        self.check_golden("dict")

    def test_nydus_merged(self):
        # Hidden files' chunks, which it has no digests of, do not keep it from being complete.
        self.check_golden("merged-plain", expected="expected-merged.json")

    def test_nydus_merged_with_a_table_of_contents(self):
        self.check_golden("merged-toc", kill=True, expected="expected-merged.json")

    def test_nydus_prefetch_list(self):
        self.push_golden("prefetch")
        self.daemon.start()
        self.daemon.mount("m", self.image, self.point, plain_http=True, ready="prefetched")
        self.registry.stop()
        with open(os.path.join(GOLDEN, "expected.json"), encoding="utf-8") as handle:
            expected = json.load(handle)
        listed = ["sizes/65537", "names/-dash", *(f"many/{i:02}" for i in range(40))]
        for path in listed:
            with open(os.path.join(self.point, path), "rb") as handle:
                self.assertEqual(hashlib.sha256(handle.read()).hexdigest(), expected[path][6], path)
        # The list is not the whole image.
        with self.assertRaises(OSError), open(os.path.join(self.point, "sizes/65536"), "rb") as handle:
            handle.read()

    def test_nydus_uncompressed(self):
        self.check_golden("none-sha256-0x1000")

    def test_gzip_chunks(self):
        self.check_golden("gzip")

    def test_ours(self):
        files = {f"data/{n}": os.urandom(1000 + n * 150_000) for n in range(8)}
        make_rafs(self.dir, files, self.image)
        found = self.read_all_then_restart(kill=False)
        for name, data in files.items():
            self.assertEqual(found[name][4], hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
