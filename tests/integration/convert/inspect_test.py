#!/usr/bin/env python3
"""`davit inspect` and `davit stat`, as tables and as JSON, of images and of local bootstraps."""
import json
import os
import shutil
import tarfile
import tempfile
import unittest

from images import Layout, davit, directory, entry, make_tar

DATA = os.urandom(3 * 65536 + 100)
ENTRIES = [
    directory("etc", mode=0o750, uid=3, gid=4), entry("etc/data", DATA, uid=1000, gid=2000, mtime=1_600_000_000.5, pax={"SCHILY.xattr.user.k": "v"}),
    entry("etc/empty", b""), entry("etc/hard", type=tarfile.LNKTYPE, link="etc/data"), entry("etc/soft", type=tarfile.SYMTYPE, link="data"),
    entry("etc/raw-\udcff", b"raw"), entry("etc/evil\x1b[2J", b"evil"), directory("etc/sub"), directory("none"),
    entry("device", type=tarfile.CHRTYPE, dev=(1, 3)), entry("pipe", type=tarfile.FIFOTYPE),
]


class InspectTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="davit-inspect-test-")
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        source = Layout(os.path.join(cls.dir, "source"))
        tar = make_tar(ENTRIES)
        source.tag(source.image([tar]), "x")
        cls.image = f"oci:{cls.dir}/target:x"
        cls.digest = json.loads(davit("convert", f"oci:{source.path}:x", cls.image, "--chunk-size", "64KiB", "--compressor", "lz4_block",
                                      "--output", "json").stdout)["digest"]
        with open(os.path.join(cls.dir, "x.tar"), "wb") as handle:
            handle.write(tar)
        out = os.path.join(cls.dir, "local")
        built = json.loads(davit("build", os.path.join(cls.dir, "x.tar"), "-o", out, "--chunk-size", "64KiB", "--compressor", "lz4_block",
                                 "--output", "json").stdout)
        cls.bootstrap, cls.blob = built["bootstrap"], built["blobs"][0]

    def json(self, *args):
        return json.loads(davit(*args, "--output", "json").stdout)

    def test_an_image_as_json(self):
        got = self.json("inspect", self.image)
        self.assertEqual(got["manifest"], self.digest)
        self.assertEqual([got[key] for key in ("version", "chunk_size", "compressor", "digester", "xattrs")], ["v6", 65536, "lz4_block", "blake3", True])
        # Root, etc, data, empty, soft, raw, evil, sub, none, device, pipe; a hard link is none of its own.
        self.assertEqual(got["inodes"], 11)
        self.assertEqual(len(got["blobs"]), 1)
        path = os.path.join(self.dir, "target/blobs/sha256", got["blobs"][0]["id"])
        self.assertLessEqual(got["blobs"][0]["compressed_bytes"], os.path.getsize(path))
        self.assertEqual(got["blobs"][0]["chunks"], 6)  # four of data, raw, evil

    def test_a_local_bootstrap(self):
        got = self.json("inspect", "--bootstrap", self.bootstrap)
        self.assertEqual(got["manifest"], "")
        self.assertEqual(got["blobs"][0]["id"], self.blob["id"])
        self.assertEqual(got["blobs"][0]["chunks"], self.blob["chunks"])

    def test_an_image_as_a_table(self):
        rows = davit("inspect", self.image).stdout.decode().splitlines()
        table = dict(row.split(None, 1) for row in rows if not row.startswith((" ", "chunk size", "blobs")))
        self.assertEqual(table["manifest"], self.digest)
        self.assertEqual((table["version"], table["inodes"], table["compressor"], table["digester"], table["xattrs"]), ("v6", "11", "lz4_block", "blake3", "yes"))
        self.assertIn("chunk size  64.0 KiB", rows)
        blob = rows[rows.index("blobs") + 1].split()
        self.assertEqual(blob[0], self.json("inspect", self.image)["blobs"][0]["id"])
        self.assertEqual(blob[-2:], ["6", "chunks"])

    def test_a_file_as_json(self):
        got = self.json("inspect", self.image, "--path", "/etc/data")
        self.assertEqual([got[key] for key in ("path", "type", "mode", "uid", "gid", "size", "nlink", "mtime", "mtime_nsec")],
                         ["/etc/data", "file", "100644", 1000, 2000, len(DATA), 2, 1_600_000_000, 500_000_000])
        self.assertEqual(got["xattrs"], ["user.k"])
        # Chunks that follow each other in the blob are one extent.
        self.assertEqual([(part["offset"], part["length"], part["blob"]) for part in got["extents"]], [(0, len(DATA), 0)])
        self.assertNotIn("entries", got)
        self.assertEqual(self.json("inspect", self.image, "--path", "/etc/hard")["inode"], got["inode"])
        self.assertEqual(self.json("inspect", self.image, "--path", "/etc/empty")["extents"], [])

    def test_a_directory_as_json(self):
        got = self.json("inspect", self.image, "--path", "/etc")
        self.assertEqual([got[key] for key in ("path", "type", "mode", "uid", "gid")], ["/etc", "directory", "40750", 3, 4])
        entries = {line["name"]: line for line in got["entries"]}
        self.assertLessEqual({"data", "empty", "hard", "soft", "sub", "evil\x1b[2J"}, set(entries))
        self.assertEqual([entries["data"][key] for key in ("type", "mode", "uid", "size")], ["file", "100644", 1000, len(DATA)])
        self.assertEqual(entries["hard"]["inode"], entries["data"]["inode"])
        self.assertEqual((entries["soft"]["type"], entries["soft"]["target"]), ("symlink", "data"))
        self.assertEqual(entries["sub"]["type"], "directory")
        # What is not UTF-8 is given as its bytes, too.
        raw = [line for line in got["entries"] if "name_hex" in line]
        self.assertEqual([bytes.fromhex(line["name_hex"]) for line in raw], [b"raw-\xff"])
        self.assertEqual(sorted(line["name"] for line in self.json("inspect", self.image, "--path", "/")["entries"]),
                         ["device", "etc", "none", "pipe"])
        self.assertEqual([line["name"] for line in self.json("inspect", self.image, "--path", "/none")["entries"]], [])

    def test_paths_as_tables(self):
        self.assertEqual(davit("inspect", self.image, "--path", "/etc/data").stdout.split(), [b"100644", b"1000", b"2000", str(len(DATA)).encode(), b"/etc/data"])
        out = davit("inspect", self.image, "--path", "/etc").stdout
        rows = {tuple(row.split(None, 4)[4:]): row.split()[:4] for row in out.splitlines()}
        self.assertEqual(rows[(b"data",)], [b"100644", b"1000", b"2000", str(len(DATA)).encode()])
        self.assertIn((b"soft -> data",), rows)
        # No name of an image steers the terminal.
        self.assertIn((b"evil\\x1b[2J",), rows)
        self.assertNotIn(b"\x1b", out)

    def test_a_path_that_is_not_there(self):
        for path in ("/etc/nothing", "/etc/data/below"):
            result = davit("inspect", self.image, "--path", path, ok=False)
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertIn(path.encode(), result.stderr)

    def test_stat(self):
        want = {"files": 4, "hard_links": 1, "directories": 4, "symlinks": 1, "others": 2, "bytes": len(DATA) + 7, "chunks": 6}
        for which in ([self.image], ["--bootstrap", self.bootstrap]):
            got = self.json("stat", *which)
            self.assertEqual({key: got[key] for key in want}, want)
            self.assertGreaterEqual(got["cache_bytes"], len(DATA) + 7)
            self.assertGreater(got["stored_bytes"], len(DATA) // 2)
        text = davit("stat", self.image).stdout.decode()
        for words in ("4 files with", "1 hard links", "4 directories", "1 symlinks", "2 others", "6 chunks"):
            self.assertIn(words, text)


if __name__ == "__main__":
    unittest.main()
