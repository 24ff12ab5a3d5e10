#!/usr/bin/env python3
"""`davit demo` and `make demo IMAGE=...`: other images, --keep, and that nothing is left."""
import glob
import os
import random
import re
import shutil
import subprocess
import sys
import unittest

from daemon_fixture import BIN, DAVIT, Registry, davit, is_mounted, workspace, write_layout

SOURCE = os.environ["DAVIT_SOURCE_DIR"]
FILES = {"etc/hello": b"hello from the image\n", "data/big": random.Random(1).randbytes(300_000)}


def run(*command, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DAVIT_", "IMAGE", "COMMAND", "MAKE"))}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=SOURCE,
                          env={**env, "DAVIT_BIN_DIR": BIN, **environment})


def program_files(name):
    """This machine's program and the libraries that it loads, as files of an image."""
    path = shutil.which(name)
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    files = {}
    for one in [path, *re.findall(r"(/\S+) \(0x", listed)]:
        with open(one, "rb") as data:
            files[("bin/" + name if one == path else one.lstrip("/"))] = data.read()
    return files


def processes_below(path):
    """Processes that name `path` in their command line or environment (davitd is told by that)."""
    found = set()
    for entry in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(entry, "rb") as text:
                if path.encode() in text.read():
                    found.add(os.path.dirname(entry))
        except OSError:
            pass  # ended meanwhile
    return found


class DemoTest(unittest.TestCase):
    def setUp(self):
        context = workspace()
        self.dir = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.layout = os.path.join(self.dir, "layout")
        write_layout(self.layout, FILES)
        self.before = set(glob.glob("/tmp/davit-demo.*"))

    def assert_nothing_left(self):
        left = set(glob.glob("/tmp/davit-demo.*")) - self.before
        self.assertEqual(left, set())

    def test_keep_leaves_it_mounted_and_its_script_removes_it(self):
        write_layout(self.layout, {**FILES, **program_files("cat")}, "cat", mode=0o755)
        done = run(DAVIT, "demo", "--keep", IMAGE=f"oci:{self.layout}:cat", COMMAND="/bin/cat /etc/hello")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(FILES["etc/hello"].decode(), done.stdout)
        point = re.search(r"Left mounted: (/tmp/davit-demo\.\w+/pod/mount)", done.stdout).group(1)
        work = os.path.dirname(os.path.dirname(point))
        remove = re.search(rf"^\s*({work}/remove)$", done.stdout, re.M).group(1)
        self.addCleanup(lambda: os.path.exists(remove) and subprocess.run([remove], check=False))
        # What was fetched for the program, by the daemon's own count, against what the image has in the registry.
        fetched, requests, stored = re.search(r"([\d.]+) MB came over the network in (\d+) requests, of ([\d.]+) MB", done.stdout).groups()
        self.assertGreater(float(stored), 0)
        self.assertGreater(float(fetched), 0)
        self.assertGreater(int(requests), 0)
        self.assertLessEqual(float(fetched), float(stored) + 0.1)
        self.assertTrue(is_mounted(point))
        self.assertEqual(len(processes_below(work)), 3, "registry, driver and daemon")
        # Still served: content that nothing has read so far.
        with open(os.path.join(point, "data/big"), "rb") as data:
            self.assertEqual(data.read(), FILES["data/big"])
        gone = subprocess.run([remove], capture_output=True, text=True, check=False)
        self.assertEqual(gone.returncode, 0, gone.stdout + gone.stderr)
        self.assertFalse(is_mounted(point))
        self.assertEqual(processes_below(work), set())
        self.assert_nothing_left()

    def test_make_demo_takes_an_image_of_a_registry(self):
        registry = Registry(self.dir).start()
        self.addCleanup(registry.stop)
        image = f"{registry.host}/some/app:v1"
        davit("copy", f"oci:{self.layout}:v1", image, "--plain-http")
        # "build" counts as done: the binaries are those of this test's build.
        done = run("make", "--old-file=build", "demo", f"IMAGE={image}")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(image, done.stdout)
        self.assertIn("it has no ls", done.stdout)
        self.assertRegex(done.stdout, r"drwx.* data\n")
        self.assertIn("nothing is left", done.stdout)
        self.assert_nothing_left()

    def test_an_image_that_is_not_there_is_said_and_cleaned_up(self):
        registry = Registry(self.dir).start()
        self.addCleanup(registry.stop)
        done = run(os.path.join(SOURCE, "scripts/demo"), IMAGE=f"{registry.host}/no/such:v1")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no/such", done.stderr)
        self.assert_nothing_left()

    def test_unknown_arguments_are_refused(self):
        done = run(os.path.join(SOURCE, "scripts/demo"), "--kept")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--keep", done.stderr)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
