#!/usr/bin/env python3
"""Images that the real nydus-image made (tests/golden/nydus): every chunk verifies, and the content
and attributes are what was put in. Also with gzip chunks, which it has no way to make."""
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import tempfile
import unittest

import gzip_chunks

DAVIT = os.path.join(os.environ["DAVIT_BIN_DIR"], "davit")
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../golden/nydus")
TYPES = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO, tarfile.CHRTYPE: stat.S_IFCHR}


def run(*args):
    result = subprocess.run([DAVIT, *args], capture_output=True)
    if result.returncode != 0:
        raise AssertionError(f"davit {' '.join(args)}: {result.stderr.decode(errors='replace')}")
    return result.stdout


class GoldenTest(unittest.TestCase):
    def compare(self, folder):
        boot = os.path.join(folder, "image.boot")
        report = json.loads(run("check", "--bootstrap", boot, "--blob-dir", folder, "--output", "json"))
        self.assertEqual(report["problems"], [])
        expected = json.load(open(os.path.join(GOLDEN, "expected.json")))
        with tempfile.TemporaryDirectory() as work:
            tar_path = os.path.join(work, "out.tar")
            run("unpack", "--bootstrap", boot, "--blob-dir", folder, "-o", tar_path)
            seen = {}
            with tarfile.open(tar_path) as tar:
                for info in tar:
                    name = info.name.strip("/").removeprefix("./")
                    if name in ("", "."):
                        continue
                    seen[name] = info
                    want = expected[name]
                    kind = stat.S_IFREG if info.isreg() or info.islnk() else TYPES[info.type]
                    self.assertEqual([str(kind), str(info.mode), str(info.uid), str(info.gid)], want[:4], name)
                    self.assertAlmostEqual(info.mtime, int(want[4]) / 1e9, places=6)
                    if info.isreg():
                        data = tar.extractfile(info).read()
                        self.assertEqual([str(len(data)), hashlib.sha256(data).hexdigest()], want[5:7], name)
                        xattrs = sorted([key.removeprefix("SCHILY.xattr."), value.encode("utf-8", "surrogateescape").hex()]
                                        for key, value in info.pax_headers.items() if key.startswith("SCHILY.xattr."))
                        if name == "many/04":
                            self.assertTrue(xattrs or any(k.startswith("LIBARCHIVE.xattr.") for k in info.pax_headers), info.pax_headers)
                    elif info.issym():
                        self.assertEqual(info.linkname, bytes.fromhex(want[5]).decode())
            self.assertEqual(set(seen), set(expected))

    def test_gzip_chunks(self):
        for name in ("none-blake3-0x1000", "none-sha256-0x10000"):
            with self.subTest(name), tempfile.TemporaryDirectory() as work:
                folder = os.path.join(work, "image")
                self.assertGreater(gzip_chunks.convert(os.path.join(GOLDEN, name), folder), 40)
                info = json.loads(run("inspect", "--bootstrap", os.path.join(folder, "image.boot"), "--output", "json"))
                self.assertEqual(info["compressor"], "gzip")
                self.compare(folder)

    def test_a_damaged_gzip_chunk_is_found(self):
        with tempfile.TemporaryDirectory() as work:
            folder = os.path.join(work, "image")
            gzip_chunks.convert(os.path.join(GOLDEN, "none-blake3-0x1000"), folder)
            (blob,) = [name for name in os.listdir(folder) if name != "image.boot"]
            with open(os.path.join(folder, blob), "r+b") as handle:
                at = handle.read().index(b"\x1f\x8b\x08") + 15  # inside the first gzip member
                handle.seek(at)
                byte = handle.read(1)[0]
                handle.seek(at)
                handle.write(bytes([byte ^ 0x10]))
            result = subprocess.run([DAVIT, "check", "--bootstrap", os.path.join(folder, "image.boot"), "--blob-dir", folder, "--output", "json"],
                                    capture_output=True)
            self.assertEqual(result.returncode, 1)
            self.assertEqual(len(json.loads(result.stdout)["problems"]), 1, result.stdout)


def case(folder):
    return lambda self: self.compare(folder)


for name in sorted(os.listdir(GOLDEN)):
    path = os.path.join(GOLDEN, name)
    if os.path.isdir(path):
        setattr(GoldenTest, "test_" + name.replace("-", "_"), case(path))

if __name__ == "__main__":
    unittest.main()
