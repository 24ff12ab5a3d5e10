#!/usr/bin/env python3
"""Images that the real nydus-image made (tests/golden/nydus): every chunk verifies, and the content
and attributes are what was put in."""
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import tempfile
import unittest

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


def case(folder):
    return lambda self: self.compare(folder)


for name in sorted(os.listdir(GOLDEN)):
    path = os.path.join(GOLDEN, name)
    if os.path.isdir(path):
        setattr(GoldenTest, "test_" + name.replace("-", "_"), case(path))

if __name__ == "__main__":
    unittest.main()
