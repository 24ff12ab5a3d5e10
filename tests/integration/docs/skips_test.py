#!/usr/bin/env python3
"""A test program that could run none of its cases says so by its exit code: 77, and not 0."""
import os
import subprocess
import sys
import tempfile
import unittest

SUPPORT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../support/daemon_py")
RUNS, SKIPS, FAILS = "pass", "self.skipTest('no such kernel')", "self.fail('it is broken')"


class SkipsTest(unittest.TestCase):
    def run_program(self, *bodies, setup="pass"):
        """One case for each body; (exit code, what it said)."""
        text = "import unittest\nfrom skips import run_tests\nclass Case(unittest.TestCase):\n"
        text += f"    @classmethod\n    def setUpClass(cls):\n        {setup}\n"
        text += "".join(f"    def test_{number}(self):\n        {body}\n" for number, body in enumerate(bodies))
        with tempfile.TemporaryDirectory(prefix="davit-skips-") as folder:
            path = os.path.join(folder, "program.py")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text + "run_tests()\n")
            done = subprocess.run([sys.executable, path], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SUPPORT}, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_all_skipped(self):
        for code, said in (self.run_program(SKIPS), self.run_program(SKIPS, SKIPS),
                           self.run_program(RUNS, RUNS, setup="raise unittest.SkipTest('no such kernel')")):
            self.assertEqual(code, 77, said)
            self.assertIn("SKIPPED: no such kernel", said)

    def test_some_ran(self):
        self.assertEqual(self.run_program(RUNS)[0], 0)
        self.assertEqual(self.run_program(RUNS, SKIPS)[0], 0)

    def test_failures_are_no_skips(self):
        self.assertEqual(self.run_program(SKIPS, FAILS)[0], 1)
        self.assertEqual(self.run_program(FAILS)[0], 1)
        self.assertEqual(self.run_program(RUNS, setup="raise OSError('broken')")[0], 1)


if __name__ == "__main__":
    unittest.main()
