#!/usr/bin/env python3
"""`davit merge` of layers that `davit build` made: the result is what their overlay would show.

The expected trees are written down; the same layers through `davit convert` must agree."""
import io
import json
import os
import shutil
import tarfile
import tempfile
import unittest

from images import Layout, content, davit, directory, entry, make_tar

SHARED = os.urandom(200_000)
LAYERS = [
    [directory("a", mode=0o750, uid=7, gid=8), entry("a/keep", b"keep"), entry("a/gone", b"gone"), entry("a/shared", SHARED), directory("opaque"), entry("opaque/low", b"low"),
     directory("tree"), entry("tree/deep", b"deep"), entry("target", b"target", mode=0o600)],
    [entry("a/.wh.gone", b""), entry("a/new", b"new"), entry("opaque/.wh..wh..opq", b""), entry("opaque/high", b"high"), entry(".wh.tree", b"")],
    [entry("a/keep", b"kept, but newer"), entry("a/copy", SHARED), entry("tree", b"a file now"), entry("link", type=tarfile.LNKTYPE, link="target"),
     entry("target", b"target", mode=0o600)],
]
WANT = {"a": None, "a/keep": b"kept, but newer", "a/shared": SHARED, "a/copy": SHARED, "a/new": b"new", "opaque": None, "opaque/high": b"high",
        "tree": b"a file now", "target": b"target", "link": b"target"}


class MergeTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="davit-merge-test-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.blobs = os.path.join(self.dir, "blobs")
        os.mkdir(self.blobs)

    def build(self, name, entries, *flags):
        """The bootstrap of a layer; its blob goes to self.blobs."""
        tar, out = os.path.join(self.dir, name + ".tar"), os.path.join(self.dir, name)
        with open(tar, "wb") as handle:
            handle.write(make_tar(entries))
        built = json.loads(davit("build", tar, "-o", out, "--output", "json", *flags).stdout)
        for blob in os.listdir(out):
            if blob != "image.boot":
                shutil.copy(os.path.join(out, blob), self.blobs)
        return built["bootstrap"], built

    def layer(self, name, entries, *flags):
        """The bootstrap that the layer's blob holds: it keeps deletions and what the tar did not say."""
        built = self.build(name, entries, "--inline-bootstrap", *flags)[1]
        blobs = {blob["id"] for blob in built["blobs"]}
        blob, = blobs & set(os.listdir(os.path.join(self.dir, name)))
        boot = os.path.join(self.dir, blob)
        davit("extract", os.path.join(self.blobs, blob), "-o", boot)
        return boot, built

    def merge(self, *bootstraps):
        out = os.path.join(self.dir, "merged.boot")
        report = json.loads(davit("merge", *bootstraps, "-o", out, "--output", "json").stdout)
        self.assertEqual(report["bootstrap"], out)
        self.assertEqual(report["bytes"], os.path.getsize(out))
        return out, report

    def unpack(self, bootstrap):
        local = ["--bootstrap", bootstrap, "--blob-dir", self.blobs]
        self.assertEqual(json.loads(davit("check", *local, "--output", "json").stdout)["problems"], [])
        tar = davit("unpack", *local, "-o", "-").stdout
        self.assertFalse([name for name in tarfile.open(fileobj=io.BytesIO(tar)).getnames() if ".wh." in name])
        return content(tar)

    def data(self, tree):
        return {name: value[5] if value[0] == "file" else None for name, value in tree.items()}

    def test_three_layers(self):
        boots = [self.layer(f"l{i}", entries)[0] for i, entries in enumerate(LAYERS)]
        merged, report = self.merge(*boots)
        tree = self.unpack(merged)
        self.assertEqual(self.data(tree), WANT)
        self.assertEqual(tree["link"][1], 0o600)
        # The upper layers do not name the directory: it keeps its own attributes.
        self.assertEqual(tree["a"][1:5], (0o750, 7, 8, 1_600_000_000))
        self.assertEqual({blob["id"] for blob in report["blobs"]}, {os.path.basename(boot) for boot in boots})

    def test_deletion_markers_as_they_are(self):
        merged, report = self.merge(*[self.build(f"l{i}", entries, "--whiteouts", "none")[0] for i, entries in enumerate(LAYERS)])
        self.assertEqual(self.data(self.unpack(merged)), WANT)
        self.assertEqual(len(report["blobs"]), 3)

    def test_the_same_as_the_conversion(self):
        source = Layout(os.path.join(self.dir, "source"))
        source.tag(source.image([make_tar(entries) for entries in LAYERS]), "x")
        davit("convert", f"oci:{source.path}:x", f"oci:{self.dir}/target:x")
        converted = content(davit("unpack", f"oci:{self.dir}/target:x", "-o", "-").stdout)
        merged, _ = self.merge(*[self.layer(f"l{i}", entries)[0] for i, entries in enumerate(LAYERS)])
        self.assertEqual(self.unpack(merged), converted)
        self.assertEqual(davit("check", "--bootstrap", merged, "--blob-dir", self.blobs, "--source", f"oci:{source.path}:x").returncode, 0)

    def test_layers_with_a_dictionary(self):
        base, built = self.build("dict", [entry("old/shared", SHARED)])
        dictionary = built["blobs"][0]["id"]
        boots, uses = [], []
        for i, entries in enumerate(LAYERS):
            without = self.build(f"w{i}", entries)[1]["blobs"]
            boot, report = self.layer(f"l{i}", entries, "--chunk-dict", base)
            boots.append(boot)
            uses.append(dictionary in {blob["id"] for blob in report["blobs"]})
            # What the dictionary has is in no layer's own blob.
            own, = [blob["bytes"] for blob in report["blobs"] if blob["id"] != dictionary]
            self.assertEqual(uses[-1], without[0]["bytes"] > len(SHARED))
            self.assertLess(own, len(SHARED) // 5)
        self.assertEqual(uses, [True, False, True])
        merged, report = self.merge(*boots)
        # Two layers refer to the dictionary's blob; the table has it once.
        # Nothing is left of what only the lowest layer had.
        ids = [blob["id"] for blob in report["blobs"]]
        self.assertEqual(sorted(ids), sorted([dictionary, *map(os.path.basename, boots[1:])]))
        self.assertEqual(self.data(self.unpack(merged)), WANT)

    def test_a_dictionary_that_does_not_fit(self):
        base, _ = self.build("dict", LAYERS[0], "--chunk-size", "4KiB")
        result = davit("build", os.path.join(self.dir, "dict.tar"), "-o", self.dir + "/x", "--chunk-dict", base, ok=False)
        self.assertEqual(result.returncode, 2)
        for word in (base, "chunk size", "4096", "1048576"):
            self.assertIn(word, result.stderr.decode())

    def test_layers_that_do_not_fit_together(self):
        one, _ = self.build("one", LAYERS[0])
        two, _ = self.build("two", LAYERS[1], "--digester", "sha256")
        result = davit("merge", one, two, "-o", os.path.join(self.dir, "merged.boot"), ok=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn(two, result.stderr.decode())
        self.assertIn("digester", result.stderr.decode())
        self.assertFalse(os.path.exists(os.path.join(self.dir, "merged.boot")))

    def test_a_bootstrap_that_is_none(self):
        result = davit("merge", "/etc/passwd", "-o", os.path.join(self.dir, "merged.boot"), ok=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("/etc/passwd", result.stderr.decode())
        self.assertIn("merge", davit("merge", "--help").stdout.decode())

    def test_text(self):
        boots = [self.build(f"l{i}", layer)[0] for i, layer in enumerate(LAYERS[:2])]
        out = os.path.join(self.dir, "merged.boot")
        lines = davit("merge", *boots, "-o", out).stdout.decode().splitlines()
        self.assertRegex(lines[0], rf"^{out}: .* inodes$")
        self.assertEqual(len([line for line in lines if line.startswith("  blob ")]), 2)


if __name__ == "__main__":
    unittest.main()
