#!/usr/bin/env python3
"""Images that the real nydus-image made (tests/golden/nydus): every chunk verifies, and the content
and attributes are what was put in. Also with gzip chunks, which it has no way to make, and layers of
its making that are merged here."""
import hashlib
import io
import json
import os
import stat
import struct
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


def check(boot, folder):
    """The exit code and the report of `davit check`."""
    result = subprocess.run([DAVIT, "check", "--bootstrap", boot, "--blob-dir", folder, "--output", "json"], capture_output=True)
    return result.returncode, json.loads(result.stdout)


def blobs_of(folder):
    return sorted(name for name in os.listdir(folder) if name != "image.boot")


def names_of(tar):
    """(name without ./, entry) of everything but the root."""
    for info in tar:
        name = info.name.strip("/").removeprefix("./")
        if name not in ("", "."):
            yield name, info


class GoldenTest(unittest.TestCase):
    def compare(self, folder, boot=None, expected="expected.json"):
        """The image in `folder`, or the one that the bootstrap `boot` makes of its blobs."""
        boot = boot or os.path.join(folder, "image.boot")
        code, report = check(boot, folder)
        self.assertEqual((report["problems"], code), ([], 0))
        with open(os.path.join(GOLDEN, expected), encoding="utf-8") as handle:
            want = json.load(handle)
        with tempfile.TemporaryDirectory() as work:
            tar_path = os.path.join(work, "out.tar")
            run("unpack", "--bootstrap", boot, "--blob-dir", folder, "-o", tar_path)
            with tarfile.open(tar_path) as tar:
                seen = {name: self.compare_entry(tar, name, info, want) for name, info in names_of(tar)}
        self.assertEqual(set(seen), set(want))
        return report

    def compare_entry(self, tar, name, info, expected):
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
            else:
                self.assertEqual(xattrs, want[-1], name)
        elif info.islnk():
            target = info.linkname.strip("/").removeprefix("./")
            self.assertEqual(want, expected[target], name)  # one inode: also the number and the first of its names
            self.assertGreater(int(want[7]), 1)
        elif info.issym():
            self.assertEqual(info.linkname, bytes.fromhex(want[5]).decode())

    def extracted(self, folder, work):
        """The bootstraps inside the blobs of the folder, each in a file named by its blob."""
        paths = [os.path.join(work, name) for name in blobs_of(folder)]
        for path in paths:
            run("extract", os.path.join(folder, os.path.basename(path)), "-o", path)
        return paths

    def test_inline_bootstraps(self):
        for name in ("inline", "inline-toc"):
            with self.subTest(name), tempfile.TemporaryDirectory() as work:
                folder = os.path.join(GOLDEN, name)
                (boot,) = self.extracted(folder, work)
                self.compare(folder, boot)

    def test_layers_merged_by_the_real_tool(self):
        for name in ("merged-plain", "merged-toc"):
            with self.subTest(name):
                report = self.compare(os.path.join(GOLDEN, name), expected="expected-merged.json")
                # Of what the upper layer hides, the merged bootstrap has no digests.
                self.assertGreater(report["unused_chunks"], 3)

    def test_layers_merged_here(self):
        for name in ("merged-plain", "merged-toc"):
            with self.subTest(name), tempfile.TemporaryDirectory() as work:
                folder = os.path.join(GOLDEN, name)
                lower_first = sorted(self.extracted(folder, work), key=self.is_upper)
                merged = os.path.join(work, "merged.boot")
                run("merge", *lower_first, "-o", merged)
                self.compare(folder, merged, expected="expected-merged.json")

    @staticmethod
    def is_upper(boot):
        return subprocess.run([DAVIT, "inspect", "--bootstrap", boot, "--path", "/.wh.doomed"], capture_output=True).returncode == 0

    def test_a_bootstrap_from_a_blob_wants_the_blobs_name(self):
        with tempfile.TemporaryDirectory() as work:
            (boot,) = self.extracted(os.path.join(GOLDEN, "inline-toc"), work)
            os.rename(boot, os.path.join(work, "image.boot"))
            result = subprocess.run([DAVIT, "inspect", "--bootstrap", os.path.join(work, "image.boot")], capture_output=True, text=True)
            self.assertEqual(result.returncode, 1)
            self.assertIn("name the bootstrap's file by the id of the blob", result.stderr)
            os.rename(os.path.join(work, "image.boot"), boot + ".boot")
            run("inspect", "--bootstrap", boot + ".boot")

    def test_a_chunk_that_is_used_needs_a_digest(self):
        folder = os.path.join(GOLDEN, "none-blake3-0x1000")
        with open(os.path.join(folder, "image.boot"), "rb") as handle:
            boot = bytearray(handle.read())
        (size,) = struct.unpack_from("<Q", boot, 1152 + 32)  # of the chunk table
        struct.pack_into("<Q", boot, 1152 + 32, size - 80)
        with tempfile.NamedTemporaryFile() as short:
            short.write(boot)
            short.flush()
            code, report = check(short.name, folder)
        self.assertEqual((code, report["unused_chunks"]), (1, 0), report)
        self.assertIn("neither a digest nor a checksum", " ".join(report["problems"]))

    def test_what_the_golden_images_hold(self):
        """Else an image that is made anew without it would go on passing."""
        self.assertEqual(len(blobs_of(os.path.join(GOLDEN, "dict"))), 2)
        for name, entries in (("prefetch", 3), ("toc", 0)):
            with open(os.path.join(GOLDEN, name, "image.boot"), "rb") as handle:
                handle.seek(1152 + 48)
                self.assertEqual(struct.unpack("<I", handle.read(4)), (4 * entries,), name)
        info = json.loads(run("inspect", "--bootstrap", os.path.join(GOLDEN, "dict/image.boot"), "--output", "json"))
        self.assertEqual(sorted(blob["id"] for blob in info["blobs"]), blobs_of(os.path.join(GOLDEN, "dict")))

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
            (blob,) = blobs_of(folder)
            with open(os.path.join(folder, blob), "r+b") as handle:
                at = handle.read().index(b"\x1f\x8b\x08") + 15  # inside the first gzip member
                handle.seek(at)
                byte = handle.read(1)[0]
                handle.seek(at)
                handle.write(bytes([byte ^ 0x10]))
            code, report = check(os.path.join(folder, "image.boot"), folder)
            self.assertEqual((code, len(report["problems"])), (1, 1), report)


def case(folder):
    def test(self):
        self.compare(folder)
    return test


for name in sorted(os.listdir(GOLDEN)):
    path = os.path.join(GOLDEN, name)
    if os.path.isdir(path) and not name.startswith(("inline", "merged")):
        setattr(GoldenTest, "test_" + name.replace("-", "_"), case(path))

if __name__ == "__main__":
    unittest.main()
