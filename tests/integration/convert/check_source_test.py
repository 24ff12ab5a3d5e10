#!/usr/bin/env python3
"""`davit check --source`: an image against the OCI image that it was made of. Everything that can
differ is found and named; what is contradictory is refused."""
import json
import os
import shutil
import tarfile
import tempfile
import unittest

from images import Layout, davit, directory, entry, make_tar

BIG = bytes(range(256)) * 9000


def tree(**changes):
    """The entries of one layer; `changes` replaces those of a name (None: leaves it out)."""
    entries = {
        "dir": directory("dir"),
        "big": entry("dir/big", BIG),
        "hard": entry("dir/hard", type=tarfile.LNKTYPE, link="dir/big"),
        "twin": entry("dir/twin", BIG),
        "small": entry("dir/small", b"small\n", pax={"SCHILY.xattr.user.k": "v"}),
        "soft": entry("dir/soft", type=tarfile.SYMTYPE, link="big"),
        "device": entry("dir/device", type=tarfile.CHRTYPE, dev=(1, 3)),
    }
    entries.update(changes)
    return [value for value in entries.values() if value is not None]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


# name: (what the source has instead, the path, what is said of it)
DIFFERENCES = {
    "a flipped byte": ({"twin": entry("dir/twin", flipped(BIG, 1_234_567))}, "/dir/twin", "content"),
    "a byte more": ({"small": entry("dir/small", b"small\n\n", pax={"SCHILY.xattr.user.k": "v"})}, "/dir/small", "content"),
    "a file that is missing in the image": ({"new": entry("dir/new", b"")}, "/dir/new", "missing in the image"),
    "a file that is missing in the source": ({"twin": None}, "/dir/twin", "not in the source"),
    "another mode": ({"small": entry("dir/small", b"small\n", mode=0o600, pax={"SCHILY.xattr.user.k": "v"})}, "/dir/small", "100600 in the source, 100644 in the image"),
    "setuid": ({"twin": entry("dir/twin", BIG, mode=0o4644)}, "/dir/twin", "104644 in the source"),
    "another owner": ({"twin": entry("dir/twin", BIG, uid=1)}, "/dir/twin", "owner"),
    "another time": ({"twin": entry("dir/twin", BIG, mtime=1_600_000_000.5)}, "/dir/twin", "modification time"),
    "another value of an xattr": ({"small": entry("dir/small", b"small\n", pax={"SCHILY.xattr.user.k": "w"})}, "/dir/small", "extended attributes"),
    "an xattr less": ({"small": entry("dir/small", b"small\n")}, "/dir/small", "extended attributes"),
    "a link that is a copy": ({"hard": entry("dir/hard", BIG)}, "/dir/hard", "a file of its own in the source, a hard link to /dir/big in the image"),
    "a copy that is a link": ({"twin": entry("dir/twin", type=tarfile.LNKTYPE, link="dir/big")}, "/dir/twin", "a hard link to /dir/big in the source, a file of its own in the image"),
    "another link's group": ({"hard": None, "after": entry("dir/hard", type=tarfile.LNKTYPE, link="dir/twin")}, "/dir/twin", "a hard link to /dir/hard in the source, a file of its own in the image"),
    "another target of a symlink": ({"soft": entry("dir/soft", type=tarfile.SYMTYPE, link="twin")}, "/dir/soft", "link target"),
    "another device": ({"device": entry("dir/device", type=tarfile.CHRTYPE, dev=(1, 5))}, "/dir/device", "device number"),
    "another type": ({"soft": entry("dir/soft", b"big")}, "/dir/soft", "mode"),
}


class CheckSourceTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="davit-check-test-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.layout = Layout(os.path.join(self.dir, "source"))
        self.target = f"oci:{self.dir}/target:x"
        self.source = self.tagged("same", tree())
        davit("convert", self.source, self.target)

    def tagged(self, tag, *layers):
        self.layout.tag(self.layout.image([make_tar(entries) for entries in layers]), tag)
        return f"oci:{self.layout.path}:{tag}"

    def problems(self, *arguments):
        result = davit("check", *arguments, "--output", "json", ok=False)
        self.assertIn(result.returncode, (0, 1), result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(report["ok"], result.returncode == 0)
        self.assertEqual(report["ok"], not report["problems"])
        return report["problems"]

    def local(self):
        """The image as a bootstrap and a directory of blobs."""
        out = os.path.join(self.dir, "local")
        tar = os.path.join(self.dir, "source.tar")
        with open(tar, "wb") as handle:
            handle.write(make_tar(tree()))
        davit("build", tar, "-o", out)
        return out

    def test_equal_images_have_no_problems(self):
        self.assertEqual(self.problems(self.target, "--source", self.source), [])
        # The same content, in other layers and in another order.
        first = [part for part in tree() if part[0].name in ("dir", "dir/big", "dir/hard")]
        again = self.tagged("split", first, [part for part in tree() if part not in first][::-1])
        self.assertEqual(self.problems(self.target, "--source", again), [])

    def test_every_difference_is_found_and_named(self):
        for number, (name, (changes, path, text)) in enumerate(DIFFERENCES.items()):
            with self.subTest(name):
                found = self.problems(self.target, "--source", self.tagged(f"d{number}", tree(**changes)))
                self.assertTrue([line for line in found if line.startswith(path + ": ") and text in line], found)
                self.assertFalse([line for line in found if not line.startswith("/dir")], found)
                self.assertLessEqual(len(found), 3, found)

    def test_a_damaged_blob_is_found_without_a_source(self):
        out = self.local()
        self.assertEqual(self.problems("--bootstrap", f"{out}/image.boot", "--blob-dir", out), [])
        blob = next(name for name in os.listdir(out) if name != "image.boot")
        with open(os.path.join(out, blob), "r+b") as handle:
            data = handle.read(200)
            handle.seek(100)
            handle.write(bytes([data[100] ^ 1]))
        found = self.problems("--bootstrap", f"{out}/image.boot", "--blob-dir", out)
        self.assertEqual(len(found), 1, found)
        self.assertIn(blob, found[0])

    def test_a_local_bootstrap_is_compared_too(self):
        out = self.local()
        local = ["--bootstrap", f"{out}/image.boot", "--blob-dir", out]
        self.assertEqual(self.problems(*local, "--source", self.source), [])
        other = self.tagged("other", tree(twin=entry("dir/twin", flipped(BIG, 0)), hard=None))
        found = self.problems(*local, "--source", other)
        self.assertEqual(found, ["/dir/twin: content differs", "/dir/hard: is not in the source"])

    def test_contradictions_are_refused(self):
        out = self.local()
        boot = f"{out}/image.boot"
        for arguments, words in [
            (["check", self.target, "--bootstrap", boot], [self.target, boot, "leave one of them out"]),
            (["check", self.target, "--blob-dir", out], ["--blob-dir", "--bootstrap"]),
            (["check", "--bootstrap", boot], [boot, "--blob-dir"]),
            (["check"], ["no image is named", "--bootstrap"]),
            (["check", "--bootstrap", boot, "--blob-dir", out, "--source", "Not A Reference"], ["Not A Reference"]),
            (["unpack", self.target, "--bootstrap", boot, "-o", "/dev/null"], [self.target, boot]),
            (["inspect", self.target, "--bootstrap", boot], [self.target, boot]),
            (["stat", self.target, "--bootstrap", boot], [self.target, boot]),
        ]:
            with self.subTest(arguments):
                result = davit(*arguments, ok=False)
                self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
                for word in words:
                    self.assertIn(word, result.stderr.decode())


if __name__ == "__main__":
    unittest.main()
