#!/usr/bin/env python3
"""What the user sees of long commands: bars on a real pseudo-terminal, plain lines in a pipe,
nothing with --quiet, clean JSON with --output json.
"""
import fcntl
import io
import json
import os
import pty
import random
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
import termios
import threading
import time
import unittest

from images import DAVIT, Layout, entry, make_tar

BAR = re.compile(r"\[(#*)(\.*)\] +(\d+)%")


class Screen:
    """The little of a terminal that progress bars need; refuses everything else."""

    def __init__(self, columns):
        self.columns, self.lines, self.row, self.column = columns, [""], 0, 0
        self.frames = []  # the screen whenever the program paused

    def feed(self, text):
        for token in re.findall(r"\x1b\[\d*[A-Za-z]|.", text, re.S):
            if token == "\r":
                self.column = 0
            elif token == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif token.startswith("\x1b["):
                self.control(token[-1], int(token[2:-1] or 1))
            elif token.isprintable():
                assert self.column < self.columns, f"line wraps: {self.lines[self.row]!r}"
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[:self.column] + token + line[self.column + 1:]
                self.column += 1
            else:
                raise AssertionError(f"unknown control {token!r}")
        self.frames.append("\n".join(self.lines))

    def control(self, letter, count):
        if letter == "A":
            assert count <= self.row, "above the screen"
            self.row -= count
        elif letter == "J":
            self.lines[self.row] = self.lines[self.row][:self.column]
            del self.lines[self.row + 1:]
        else:
            raise AssertionError(f"unknown control {letter}")


def on_terminal(*args, columns=100, feed=None, term="xterm"):
    """Runs davit with standard error on a pseudo-terminal; (exit code, standard output, Screen)."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    process = subprocess.Popen([DAVIT, *args], stdin=subprocess.PIPE if feed else subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=slave, env=dict(os.environ, TERM=term))
    os.close(slave)
    feeder = threading.Thread(target=feed, args=(process.stdin,)) if feed else None
    if feeder:
        feeder.start()
    outputs = []
    drain = threading.Thread(target=lambda: outputs.append(process.stdout.read()))
    drain.start()
    screen, raw = Screen(columns), b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # EIO: nobody has the other side any more
            break
        if not data:
            break
        raw += data
        screen.feed(data.decode())
    os.close(master)
    drain.join()
    process.stdout.close()
    if feeder:
        feeder.join()
    screen.raw = raw.decode()
    return process.wait(), outputs[0], screen


class ProgressTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="davit-progress-test-")
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        source = Layout(os.path.join(cls.dir, "source"))
        rng = random.Random(1)
        words = [rng.randbytes(rng.randint(3, 9)) for _ in range(2000)]

        def text(size):
            out = bytearray()
            while len(out) < size:
                out += rng.choice(words)
            return bytes(out)
        # Slow to compress at level 19, so that there is something to watch.
        cls.tars = [make_tar([entry(f"l{layer}-{i}", text(500_000)) for i in range(8)]) for layer in range(2)]
        source.tag(source.image(cls.tars), "x")
        cls.source = f"oci:{source.path}:x"

    def target(self):
        return f"oci:{tempfile.mkdtemp(dir=self.dir)}:x"

    def percentages(self, screen):
        """Distinct shares that bars showed, each bar as long as it says."""
        out = set()
        for frame in screen.frames:
            for line in frame.splitlines():
                for full, empty, percent in BAR.findall(line):
                    out.add(int(percent))
                    self.assertAlmostEqual(len(full) / len(full + empty) * 100, int(percent), delta=100 / len(full + empty) + 1)
        return out

    def assert_bars_gone(self, screen):
        self.assertFalse(BAR.search(screen.frames[-1]), screen.frames[-1])
        self.assertEqual(screen.lines[-1], "")

    def convert(self, *flags, **terminal):
        return on_terminal("convert", self.source, self.target(), "--level", "19", "--threads", "1", *flags, **terminal)

    def test_convert_draws_bars_in_place(self):
        code, out, screen = self.convert()
        self.assertEqual(code, 0, screen.raw)
        self.assertGreaterEqual(len(self.percentages(screen)), 3, screen.raw)
        self.assert_bars_gone(screen)
        # What stays are the plain lines, each once.
        final = [line for line in screen.lines if line]
        self.assertEqual(len([line for line in final if re.match(r"layer \d/2 [0-9a-f]{12}: built", line)]), 2, final)
        self.assertEqual(len([line for line in final if line.startswith("push ")]), 2, final)
        self.assertIn(b" -> ", out)
        self.assertNotIn(b"\x1b", out)

    def test_narrow_terminal_never_wraps(self):
        for columns in (20, 60):
            # A dozen columns have no room for a bar; the plain lines may well wrap.
            with open(os.path.join(self.dir, "in.tar"), "wb") as handle:
                handle.write(self.tars[0])
            code, _, screen = on_terminal("build", os.path.join(self.dir, "in.tar"), "-o", tempfile.mkdtemp(dir=self.dir), "--level", "19",
                                          columns=columns)
            self.assertEqual(code, 0, screen.raw)
            self.assertIn("build", screen.raw)
            self.assertEqual(bool(self.percentages(screen)), columns == 60, screen.raw)
            self.assert_bars_gone(screen)

    def test_build_from_a_pipe_has_no_end_to_show(self):
        def feed(pipe):
            for i in range(0, len(self.tars[0]), 250_000):
                pipe.write(self.tars[0][i:i + 250_000])
                pipe.flush()
                time.sleep(0.12)  # longer than the time between two drawings
            pipe.close()
        code, out, screen = on_terminal("build", "-", "-o", tempfile.mkdtemp(dir=self.dir), feed=feed)
        self.assertEqual(code, 0, screen.raw)
        shown = set(re.findall(r"build ([0-9.]+ [KM]iB)", screen.raw))
        self.assertGreaterEqual(len(shown), 4, screen.raw)
        self.assertFalse(self.percentages(screen))
        self.assert_bars_gone(screen)
        self.assertIn(b"inodes", out)

    def test_check_unpack_copy_and_build_of_a_directory(self):
        target = self.target()
        self.assertEqual(subprocess.run([DAVIT, "convert", self.source, target, "--quiet"], stdout=subprocess.DEVNULL).returncode, 0)
        tree = os.path.join(self.dir, "tree")
        with tarfile.open(fileobj=io.BytesIO(self.tars[0])) as tar:
            tar.extractall(tree)
        archive = os.path.join(self.dir, "out.tar")
        for name, args in {"chunks": ["check", target, "--source", self.source], "archive": ["unpack", target, "-o", archive],
                           "fetch": ["copy", target, self.target()], "build": ["build", tree, "-o", tempfile.mkdtemp(dir=self.dir)]}.items():
            with self.subTest(args[0]):
                code, _, screen = on_terminal(*args)
                self.assertEqual(code, 0, screen.raw)
                self.assertTrue(any(re.search(rf"^{name} ", frame, re.M) for frame in screen.frames), screen.raw)
                self.assert_bars_gone(screen)
                quiet = on_terminal(*args, "--quiet")
                self.assertEqual((quiet[0], quiet[2].raw), (0, ""))
        code, out, screen = on_terminal("check", target, "--output", "json")
        self.assertEqual((code, screen.raw, json.loads(out)["problems"]), (0, "", []))

    def test_unpack_to_a_pipe_is_the_archive_alone(self):
        target = self.target()
        subprocess.run([DAVIT, "convert", self.source, target, "--quiet"], stdout=subprocess.DEVNULL, check=True)
        code, out, _ = on_terminal("unpack", target, "-o", "-")
        self.assertEqual(code, 0)
        self.assertEqual(len(tarfile.open(fileobj=io.BytesIO(out)).getnames()), 17)

    def test_an_error_follows_on_a_clean_line(self):
        layout = Layout(tempfile.mkdtemp(dir=self.dir) + "/bad")
        layout.tag(layout.image([self.tars[0][:1_100_000]]), "x")  # ends in the middle of a file
        code, _, screen = on_terminal("convert", f"oci:{layout.path}:x", self.target(), "--level", "19", "--threads", "1", columns=500)
        self.assertEqual(code, 1)
        self.assertTrue(self.percentages(screen), screen.raw)
        self.assertTrue(any(line.startswith("davit: ") for line in screen.lines), screen.lines)
        self.assertFalse(BAR.search("\n".join(screen.lines)), screen.lines)

    def test_pipes_and_dumb_terminals_get_plain_lines(self):
        piped = subprocess.run([DAVIT, "convert", self.source, self.target()], capture_output=True, text=True)
        code, _, screen = self.convert(term="dumb")
        self.assertEqual((piped.returncode, code), (0, 0))
        for text in (piped.stderr, screen.raw.replace("\r\n", "\n")):
            self.assertNotIn("\x1b", text)
            self.assertNotIn("\r", text)
            self.assertFalse(BAR.search(text), text)
            self.assertEqual(len(re.findall(r"^layer \d/2 [0-9a-f]{12}: built", text, re.M)), 2, text)

    def test_quiet_and_json_say_nothing_else(self):
        code, out, screen = self.convert("--quiet")
        self.assertEqual((code, screen.raw), (0, ""))
        self.assertIn(b" -> ", out)
        code, out, screen = self.convert("--output", "json")
        self.assertEqual((code, screen.raw), (0, ""))
        self.assertTrue(json.loads(out)["digest"].startswith("sha256:"))


if __name__ == "__main__":
    unittest.main()
