#!/usr/bin/env python3
"""`--output json` is the same everywhere: every command that reports something has it, and prints one
JSON object with the documented members and nothing else."""
import json
import os
import re
import shutil
import tempfile
import unittest

from images import Layout, davit, entry, make_tar

# Commands of the node are tried by the tests of the daemon; the demo is a tour for people.
ELSEWHERE = {"mount", "umount", "ps", "info", "prefetch", "cache", "cache ls", "cache evict", "demo"}


def commands(*above):
    text = davit(*above, "--help").stdout.decode()
    _, _, tail = text.partition("Subcommands:")
    names = re.findall(r"^  ([a-z][a-z-]*)", tail, re.M)
    return [" ".join([*above, name]) for name in names] + [deeper for name in names for deeper in commands(*above, name)]


class OutputTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="davit-output-test-")
        self.addCleanup(shutil.rmtree, self.dir)
        source = Layout(os.path.join(self.dir, "source"))
        tar = make_tar([entry("file", b"content")])
        source.tag(source.image([tar]), "x")
        with open(os.path.join(self.dir, "x.tar"), "wb") as handle:
            handle.write(tar)

    def runs(self):
        """name: (arguments, members of the result); in an order in which each finds its input."""
        at = self.dir
        blob = None

        def built():
            nonlocal blob
            if blob is None:
                blob = next(os.path.join(at, "built", name) for name in os.listdir(os.path.join(at, "built")) if name != "image.boot")
            return blob
        return {
            "convert": (lambda: [f"oci:{at}/source:x", f"oci:{at}/target:x"],
                        "chunks content_bytes digest inodes media_type pushed_bytes seconds source source_bytes target target_bytes"),
            "copy": (lambda: [f"oci:{at}/target:x", f"oci:{at}/copy:x"], "bytes digest media_type source target"),
            "build": (lambda: [f"{at}/x.tar", "-o", f"{at}/built", "--inline-bootstrap"], "blobs bootstrap bytes inodes"),
            "extract": (lambda: [built(), "-o", os.path.join(at, os.path.basename(built()))], "bootstrap bytes"),
            "merge": (lambda: [os.path.join(at, os.path.basename(built())), "--to", f"{at}/merged.boot"], "blobs bootstrap bytes inodes"),
            "check": (lambda: [f"oci:{at}/target:x"], "bytes chunks files inodes ok problems unused_chunks"),
            "inspect": (lambda: [f"oci:{at}/target:x"], "blobs chunk_size compressor digester inodes manifest version xattrs"),
            "stat": (lambda: [f"oci:{at}/target:x"], "bytes cache_bytes chunks directories files hard_links others stored_bytes symlinks"),
            "unpack": (lambda: [f"oci:{at}/target:x", "-o", f"{at}/out.tar"], "bytes file"),
        }

    def test_one_object_and_nothing_else(self):
        for name, (arguments, members) in self.runs().items():
            with self.subTest(name):
                result = davit(name, *arguments(), "--output", "json")
                got = json.loads(result.stdout)
                self.assertEqual(sorted(got), members.split())
                self.assertEqual(result.stderr, b"")
                for key in ("bytes", "inodes", "chunks", "files"):
                    if key in got:
                        self.assertGreater(got[key], 0, key)
                # As text there is something else, of the same facts.
                text = davit(name, *arguments()).stdout.decode()
                self.assertTrue(text and not text.startswith("{"), text)

    def test_sizes_are_those_of_the_files(self):
        runs = self.runs()
        for name, key in (("convert", None), ("build", "bootstrap"), ("extract", "bootstrap"), ("merge", "bootstrap"), ("unpack", "file")):
            got = json.loads(davit(name, *runs[name][0](), "--output", "json").stdout)
            if key:
                self.assertEqual(os.path.getsize(got[key]), got["bytes"], name)

    def test_no_command_is_forgotten(self):
        self.assertEqual(set(self.runs()) | ELSEWHERE, set(commands()))
        for name in commands():
            if name in ("demo", "cache"):
                continue
            with self.subTest(name):
                text = davit(*name.split(), "--help").stdout.decode()
                self.assertRegex(text, r"--output TEXT:\{text,json\}=text")
                # One name for what is written where.
                self.assertNotRegex(text, r"--format|-o,--output|--json")

    def test_the_archive_is_not_mixed_with_the_result(self):
        davit("convert", f"oci:{self.dir}/source:x", f"oci:{self.dir}/target:x")
        result = davit("unpack", f"oci:{self.dir}/target:x", "-o", "-", "--output", "json", ok=False)
        self.assertEqual((result.returncode, result.stdout), (2, b""))
        self.assertIn(b"-o", result.stderr)


if __name__ == "__main__":
    unittest.main()
