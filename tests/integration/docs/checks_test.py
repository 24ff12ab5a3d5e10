#!/usr/bin/env python3
"""The checks of the repository find what they are there for: each is run over a small copy of a tree
with one thing wrong."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOOD = {
    "layers.txt": "common/base:\n", "docs/architecture.md": "`common/base` is the base.\n", "docs/requirements.md": "`FineTest.Works`, fine_test, `common/base/fine.h`\n",
    "docs/locks.md": "| `common/base/fine.h` `mutex_` | fine |\n", "tests/unit/fine_test.cc": "TEST(FineTest, Works) {}\n",
    "common/base/fine.h": "#include <fmt/format.h>\n#include <sys/stat.h>\n#include <vector>\n#include <stdlib.h>\nclass A {\n  mutable Mutex mutex_;\n};\n",
}
# (script, file, its text, what is said)
BAD = [
    ("check_wrappers.py", "common/base/x.cc", "#include <boost/asio.hpp>\n", "boost/asio.hpp> is of a library"),
    ("check_wrappers.py", "common/base/x.cc", "#  include <uv.h>\n", "uv.h> is of a library"),
    ("check_wrappers.py", "common/base/x.cc", "#include <curl/curl.h>\n", "curl/curl.h belongs into common/http"),
    ("check_wrappers.py", "common/http/x.h", "#include <curl/curl.h>\n", "in a header"),
    ("check_locks.py", "common/base/x.h", "struct B {\n  Mutex other_mutex_;\n};\n", "no row for common/base/x.h other_mutex_"),
    ("check_locks.py", "common/base/x.h", "struct B {\n  mutable Mutex m_ DAVIT_ACQUIRED_AFTER(n_);\n};\n", "no row for common/base/x.h m_"),
    ("check_locks.py", "common/base/x.h", "std::mutex m;\n", "use davit::Mutex"),
    ("check_locks.py", "docs/locks.md", GOOD["docs/locks.md"] + "| `common/base/fine.h` `gone_` | gone |\n", "there is no Mutex gone_"),
    ("check_docs.py", "docs/x.md", "See `common/base/gone.h`.\n", "there is no common/base/gone.h"),
    ("check_docs.py", "docs/x.md", "See `tests/unit/gone/`.\n", "there is no tests/unit/gone/"),
    ("check_docs.py", "docs/x.md", "Proven by `FineTest.Breaks`.\n", "there is no test FineTest.Breaks"),
    ("check_docs.py", "docs/x.md", "Proven by gone_test.\n", "there is no test program gone_test"),
    ("check_docs.py", "docs/x.md", "[x](gone.md)\n", "leads nowhere"),
    ("check_docs.py", "layers.txt", "common/base:\ncommon/other:\n", "common/other is not described"),
    ("check_layers.py", "common/other/x.h", "\n", "no line in layers.txt"),
]


# A program of tests, run by somebody who is not root.
AS_NOBODY = r"""
import os, sys
path = sys.argv[1]
sys.argv = [path]
sys.path.insert(0, os.path.dirname(path))
code = compile(open(path).read(), path, "exec")
os.geteuid = lambda: 65534  # an interpreter may be root's alone
exec(code, {"__name__": "__main__", "__file__": path})
"""


class ChecksTest(unittest.TestCase):
    def run_check(self, script, files):
        with tempfile.TemporaryDirectory() as tree:
            for name, text in files.items():
                path = os.path.join(tree, name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w") as handle:
                    handle.write(text)
            os.makedirs(os.path.join(tree, "scripts"))
            shutil.copy(ROOT / "scripts" / script, os.path.join(tree, "scripts"))
            for command in (["init", "-q"], ["add", "-A"]):
                subprocess.run(["git", *command], cwd=tree, check=True)
            return subprocess.run(["python3", os.path.join("scripts", script)], cwd=tree, capture_output=True, text=True)

    def test_a_tree_with_nothing_wrong_passes(self):
        for script in sorted({script for script, *_ in BAD}):
            result = self.run_check(script, GOOD)
            self.assertEqual(result.returncode, 0, (script, result.stdout, result.stderr))

    def test_each_thing_that_is_wrong_is_found(self):
        for script, name, text, said in BAD:
            with self.subTest(script=script, text=text):
                result = self.run_check(script, GOOD | {name: text})
                self.assertEqual(result.returncode, 1, (result.stdout, result.stderr))
                self.assertIn(said, result.stdout)

    def test_a_changed_header_is_looked_at_through_a_source_that_includes_it(self):
        include = '#include "common/base/%s.h"\n'
        files = {"common/base/a.cc": include % "clock", "common/base/b.cc": include % "clock", "common/base/clock.h": "\n",  # of no source's name
                 "common/base/own.cc": "\n", "common/base/own.h": "\n", "a/first.cc": include % "own" + include % "clock" + include % "far",
                 "common/base/far.h": "\n", "common/base/alone.h": "\n", "tests/unit/x.cc": include % "alone", "docs/x.md": "\n"}
        # What changed, and the sources that stand for it.
        cases = [(["common/base/clock.h"], ["common/base/a.cc"]), (["common/base/own.h"], ["common/base/own.cc"]), (["common/base/far.h"], ["a/first.cc"]),
                 (["common/base/alone.h", "docs/x.md", "tests/unit/x.cc"], []), (["common/base/a.cc", "common/base/clock.h"], ["common/base/a.cc"])]
        for changed, expected in cases:
            with self.subTest(changed), tempfile.TemporaryDirectory() as tree:
                for name, text in files.items():
                    os.makedirs(os.path.dirname(os.path.join(tree, name)), exist_ok=True)
                    pathlib.Path(tree, name).write_text(text)
                os.makedirs(os.path.join(tree, "scripts"))
                shutil.copy(ROOT / "scripts/tidy", os.path.join(tree, "scripts"))
                for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "all"]):
                    subprocess.run(["git", *command], cwd=tree, check=True)
                for name in changed:
                    pathlib.Path(tree, name).write_text(files[name] + "// changed\n")
                result = subprocess.run(["scripts/tidy", "--list"], cwd=tree, capture_output=True, text=True, env=os.environ | {"TIDY_BASE": "HEAD"})
                self.assertEqual((result.returncode, result.stdout.split()), (0, expected), result.stderr)

    def test_files_that_are_too_long_are_found_wherever_they_are(self):
        for name in ("common/base/x.cc", "common/base/CMakeLists.txt", "tests/interop/run", ".ci/run", "scripts/x"):
            with self.subTest(name), tempfile.TemporaryDirectory() as tree:
                for path in (pathlib.Path(tree, "scripts/check"), pathlib.Path(tree, name)):
                    path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / "scripts/check", os.path.join(tree, "scripts"))
                for lines, code in ((800, 0), (801, 1)):
                    pathlib.Path(tree, name).write_text("#\n" * lines)
                    for command in (["init", "-q"], ["add", "-A"]):
                        subprocess.run(["git", *command], cwd=tree, check=True)
                    result = subprocess.run(["scripts/check", "sizes"], cwd=tree, capture_output=True, text=True)
                    self.assertEqual(result.returncode, code, result.stdout)
                self.assertIn(f"{name}: 801 lines", result.stdout)

    def test_tests_that_mount_say_so_without_root(self):
        env = os.environ | {"PYTHONPATH": str(ROOT / "tests/support/daemon_py"), "DAVIT_BIN_DIR": "/nowhere", "DAVIT_SOURCE_DIR": str(ROOT), "DAVIT_BUILD_DIR": "/nowhere",
                            "PYTHONDONTWRITEBYTECODE": "1"}
        tests = sorted(ROOT.glob("tests/root/*/*_test.py"))
        self.assertGreater(len(tests), 5)
        for path in tests:
            with self.subTest(path.name):
                result = subprocess.run(["python3", "-c", AS_NOBODY, path], capture_output=True, text=True, env=env)
                self.assertEqual((result.returncode, result.stdout), (77, "SKIPPED: it mounts, which needs root\n"), result.stderr)
                self.assertRegex((path.parent / "CMakeLists.txt").read_text(), "SKIP_RETURN_CODE 77")


if __name__ == "__main__":
    unittest.main()
