#!/usr/bin/env python3
"""`make install DESTDIR=`: what it puts where, that the programs run from there, and that the installed demo shows the
main job without the source tree.
"""
import glob
import os
import re
import subprocess
import sys
import unittest

from daemon_fixture import workspace, write_layout

SOURCE, BUILD = os.environ["DAVIT_SOURCE_DIR"], os.environ["DAVIT_BUILD_DIR"]
PROGRAMS = ["davit", "davit-csi", "davit-csi-client", "davitd"]


def run(*command, **options):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DAVIT_", "IMAGE", "COMMAND", "MAKE", "DESTDIR"))}
    environment.update(options.pop("env", {}))
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment, **options)


class InstallTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.space = workspace()
        cls.dir = cls.space.__enter__()
        cls.addClassCleanup(cls.space.__exit__, None, None, None)
        cls.root = os.path.join(cls.dir, "root")
        # The command of `make install`, on the build that is under test.
        recipe = run("make", "--old-file=build", "-n", "install", f"DESTDIR={cls.root}", cwd=SOURCE)
        assert recipe.returncode == 0, recipe.stderr
        (command,) = [line for line in recipe.stdout.splitlines() if "cmake --install" in line]
        assert command.count(" build/release ") == 1, command
        done = run("sh", "-c", command.replace(" build/release ", f" '{BUILD}' "), cwd=SOURCE)
        assert done.returncode == 0, done.stdout + done.stderr

    def path(self, *parts):
        return os.path.join(self.root, "usr", *parts)

    def test_everything_is_below_the_prefix(self):
        self.assertEqual(os.listdir(self.root), ["usr"])
        self.assertEqual(sorted(os.listdir(self.path())), ["bin", "share"])
        self.assertEqual(sorted(os.listdir(self.path("bin"))), PROGRAMS)
        self.assertEqual(sorted(os.listdir(self.path("share"))), ["davit", "doc"])

    def test_programs_run(self):
        for name in ("davit", "davitd", "davit-csi"):
            done = run(self.path("bin", name), "--version", cwd="/")
            self.assertEqual((done.returncode, done.stdout.strip()), (0, f"{name} {os.environ['DAVIT_VERSION']}"), done.stderr)
        for name in PROGRAMS:
            self.assertEqual(run(self.path("bin", name), "--help", cwd="/").returncode, 0, name)
            linked = run("ldd", self.path("bin", name)).stdout
            self.assertNotIn("not found", linked)
            self.assertNotIn(BUILD, linked)
            header = run("readelf", "-d", self.path("bin", name)).stdout
            self.assertFalse(re.search(r"\(R(UN)?PATH\)", header), header)
        checked = run(self.path("bin/davitd"), "--check-config", cwd="/")
        self.assertEqual(checked.returncode, 0, checked.stderr)

    def test_documents_are_there_and_their_links_lead_somewhere(self):
        doc = self.path("share/doc/davit")
        for name in ("LICENSE", "README.md", "CHANGES.md", "docs/davit.md", "docs/davitd.md", "docs/davit-csi.md", "docs/openapi.yaml"):
            self.assertTrue(os.path.isfile(os.path.join(doc, name)), name)
        for page in glob.glob(doc + "/**/*.md", recursive=True):
            if os.path.basename(page) == "CONTRIBUTING.md":  # about the source tree
                continue
            with open(page, encoding="utf-8") as text:
                links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text.read(), flags=re.S))
            for link in links:
                self.assertTrue(os.path.exists(os.path.join(os.path.dirname(page), link)), f"{page}: {link}")

    def test_the_demo_runs_from_there(self):
        layout = os.path.join(self.dir, "layout")
        write_layout(layout, {"etc/hello": b"hello\n"})
        done = run(self.path("bin/davit"), "demo", cwd="/", env={"IMAGE": f"oci:{layout}:v1"})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("nothing is left", done.stdout)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
