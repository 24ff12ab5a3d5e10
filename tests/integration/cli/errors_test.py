#!/usr/bin/env python3
"""What the command lines say when something is wrong: every error names the thing, the reason and the
next step, on standard error only, with the documented exit code (docs/davit.md: 1 did not work,
2 the command line or the configuration is wrong)."""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../convert"))
from images import Layout, davit, docker_registry, entry, make_tar  # noqa: E402

BIN = os.environ["DAVIT_BIN_DIR"]
ROOT = os.geteuid() == 0


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# (command line, exit code, thing, reason, next step); {name} is a member of ErrorsTest.names.
COMMAND_LINE = [
    # Options and commands that do not exist, with the nearest that does.
    ("davit chekc x", 2, "chekc", "unknown command", "did you mean 'check'? See davit --help"),
    ("davit frobnicate", 2, "frobnicate", "unknown command", "see davit --help"),
    ("davit cache lss", 2, "davit cache: unknown command 'lss'", "unknown command", "did you mean 'ls'? See davit cache --help"),
    ("davit convert a b --treads 3", 2, "--treads", "unknown option", "did you mean '--threads'? See davit convert --help"),
    ("davit check --souce=x", 2, "--souce", "unknown option", "did you mean '--source'? See davit check --help"),
    ("davit check x --log-levle debug", 2, "--log-levle", "unknown option", "did you mean '--log-level'?"),
    ("davit check x --zzzzzzz", 2, "--zzzzzzz", "unknown option", "see davit check --help"),
    ("davitd --sockt x", 2, "davitd: unknown option '--sockt'", "unknown option", "did you mean '--socket'? See davitd --help"),
    ("davit-csi --node-di x", 2, "davit-csi: unknown option '--node-di'", "unknown option", "did you mean '--node-id'? See davit-csi --help"),
    # What is missing or too much.
    ("davit", 2, "subcommand", "required", "see davit --help"),
    ("davit cache", 2, "davit cache: A subcommand", "required", "see davit cache --help"),
    ("davit convert a", 2, "davit convert: target", "required", "see davit convert --help"),
    ("davit build x", 2, "--to", "required", "see davit build --help"),
    ("davit mount x", 2, "directory", "required", "see davit mount --help"),
    ("davit convert a b c", 2, "'c'", "unexpected argument", "see davit convert --help"),
    ("davitd foo", 2, "'foo'", "unexpected argument", "see davitd --help"),
    ("davit check", 2, "image", "no image is named", "--bootstrap"),
    # Values.
    ("davit convert a b --threads x", 2, "--threads", "x not in range 0 to 256", "see davit convert --help"),
    ("davit convert a b --transfers 99", 2, "--transfers", "99 not in range 1 to 32", "see davit convert --help"),
    ("davit build x -o y --level many", 2, "--level", "many", "see davit build --help"),
    ("davit build {tar} -o {out} --level 99", 2, "compression level 99", "not possible with zstd", "1 to 19"),
    ("davit build {tar} -o {out} --chunk-size 12q", 2, "12q", "is not a size", "KiB, MiB or GiB"),
    ("davit build {tar} -o {out} --chunk-size 5000", 2, "5000", "chunk", "power of two"),
    ("davit build {tar} -o {out} --chunk-size 99999999999999999999", 2, "99999999999999999999", "is not a size", "KiB, MiB or GiB"),
    ("davit build {tar} -o {out} --compressor brotli", 2, "brotli", "unknown compressor", "use none, lz4_block or zstd"),
    ("davit build {tar} -o {out} --digester md5", 2, "md5", "unknown digest", "use blake3 or sha256"),
    ("davit stat x --output xml", 2, "--output", "xml not in {{text,json}}", "see davit stat --help"),
    ("davit check x --platform foo", 2, "'foo'", "is not a platform", "linux/amd64"),
    ("davit cache evict 12q", 2, "12q", "is not a size", "20GiB"),
    ("davit --log-level loud ps", 2, "--log-level", "unknown log level 'loud'", "use trace, debug, info"),
    ("davitd --idle-exit soon", 2, "--idle-exit", "is not a duration", "90s"),
    # References.
    ("davit check UPPER/case", 2, "UPPER/case", "is not an image name", "ghcr.io/owner/app:v1"),
    ("davit convert a b@sha256:" + "0" * 64, 2, "b@sha256:", "names a digest", "name a tag"),
    ("davit copy a oci:", 2, "'oci:'", "is not an image name", "oci:/path/to/layout:v1"),
    # Configuration.
    ("davitd --check-config --config {unknown_key}", 2, "budgett_bytes", "unknown key", "did you mean \"cache.budget_bytes\"?"),
    ("davitd --check-config --config {bad_number}", 2, "cache.budget_bytes", "is not a size", "20GiB"),
    ("davitd --check-config --config {bad_toml}", 2, "{bad_toml}", "line 2", ""),
    ("davitd --check-config --config {nowhere}.toml", 2, "{nowhere}.toml", "No such file", "check the path"),
    ("davitd --check-config --config {tar}", 2, "{tar}", "neither .toml nor .json", "the ending of the file's name"),
    ("davitd --check-config --set cache.budgett_bytes=1", 2, "cache.budgett_bytes", "unknown key", "did you mean \"cache.budget_bytes\"?"),
    ("davitd --check-config --set log.level", 2, "--set log.level", "\"=\" is missing", "for example"),
    ("davit-csi --check-config --config {unknown_key}", 2, "budgett_bytes", "unknown key", "did you mean \"cache.budget_bytes\"?"),
    ("davit ps --config {unknown_key}", 2, "budgett_bytes", "unknown key", "did you mean \"cache.budget_bytes\"?"),
    ("davit check x --config {unknown_key}", 2, "budgett_bytes", "unknown key", "did you mean \"cache.budget_bytes\"?"),
    ("davit copy a b --config {bad_toml}", 2, "{bad_toml}", "line 2", "what the file says"),
    ("davit convert a b --config {nowhere}.toml", 2, "{nowhere}.toml", "No such file", "check the path"),
]
FILES = [
    ("davit build {nowhere} -o {out}", 1, "{nowhere}", "No such file", "check the path"),
    ("davit build {tar} -o {tar}/below", 1, "{tar}/below", "Not a directory", "check the path"),
    ("davit build {garbage} -o {out}", 1, "{garbage}", "tar", ""),
    ("davit merge {nowhere} -o {out}", 1, "{nowhere}", "No such file", "check the path"),
    ("davit merge {garbage} -o {out}", 1, "{garbage}", "bootstrap", ""),
    ("davit extract {garbage} -o {out}", 1, "{garbage}", "neither a TOC nor a bootstrap", "inline bootstrap"),
    ("davit check --bootstrap {nowhere}", 1, "{nowhere}", "No such file", "check the path"),
    ("davit check --bootstrap {garbage}", 1, "{garbage}", "bootstrap", ""),
    ("davit check --bootstrap {boot}", 2, "{boot}", "blobs", "--blob-dir"),
    ("davit check --bootstrap {boot} --blob-dir {nowhere}", 1, "--blob-dir", "{nowhere} is no directory", "named by its id"),
    ("davit unpack --bootstrap {boot} -o {out}.tar", 2, "blob", "is needed", "--blob-dir"),
    ("davit unpack {image} -o {nowhere}/below", 1, "{nowhere}/below", "No such file", "check the path"),
    ("davit unpack {image} -o /proc/self", 1, "/proc/self", "Is a directory", "name a file"),
    ("davit inspect {image} --path /no/such", 1, "/no/such", "no such entry", "--path of a directory above"),
    ("davit build {tar} -o {out} --prefetch-file {nowhere}", 1, "{nowhere}", "No such file", "check the path"),
    ("davit check {image} --auth-file {nowhere}", 1, "--auth-file", "{nowhere}: No such file", "check the path"),
    ("davit check {image} --ca-file {nowhere}", 1, "--ca-file", "{nowhere}: No such file", "check the path"),
    ("davit check {image} --hosts-dir {tar}", 1, "--hosts-dir", "{tar} is no directory", "hosts.toml"),
]
IMAGES = [
    ("davit inspect oci:{nowhere}:x", 1, "{nowhere}", "is not an OCI layout", "check the path"),
    ("davit inspect oci:{layout}:nothing", 1, "nothing", "no", "x"),
    ("davit inspect {source}", 1, "x", "RAFS", "davit convert"),
    ("davit convert {image} oci:{layout}:y", 1, "image@sha256:", "RAFS image already", "copy this one"),
    ("davit inspect 127.0.0.1:{closed}/a:b --plain-http", 1, "127.0.0.1:{closed}", "connect", "check that the server runs"),
    ("davit inspect {registry}/no/such:v1 --plain-http", 1, "no/such", "404", "check the tag or digest"),
    ("davit inspect {registry}/no/such:v1", 1, "{registry}", "TLS|SSL|ssl", "plain HTTP is used only for hosts that are named for it"),
]
DAEMON = [
    ("davit ps --socket {nowhere}", 1, "{nowhere}", "connect", "is davitd running?"),
    ("davit info --socket {nowhere} --output json", 1, "{nowhere}", "connect", "is davitd running?"),
    ("davit umount x --socket {nowhere}", 1, "{nowhere}", "connect", "is davitd running?"),
    ("davit prefetch x --socket {nowhere}", 1, "{nowhere}", "connect", "is davitd running?"),
    ("davit cache ls --socket {nowhere}", 1, "{nowhere}", "connect", "is davitd running?"),
    ("davit ps --socket {tar}", 1, "{tar}", "connect", "is davitd running?"),
]


class ErrorsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="davit-errors-test-")
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        layout = Layout(os.path.join(cls.dir, "layout"))
        tar = make_tar([entry("file", b"content")])
        layout.tag(layout.image([tar]), "x")
        cls.names = {name: os.path.join(cls.dir, name) for name in ("layout", "nowhere", "out")}
        cls.names |= {"source": f"oci:{cls.dir}/layout:x", "image": f"oci:{cls.dir}/image:x", "closed": closed_port()}
        for name, data in {"tar": tar, "garbage": bytes(range(256)) * 100, "unknown_key.toml": b"version = 1\n[cache]\nbudgett_bytes = 1\n",
                           "bad_number.toml": b"version = 1\n[cache]\nbudget_bytes = \"much\"\n", "bad_toml.toml": b"version = 1\n[cache\n"}.items():
            path = cls.names[name.removesuffix(".toml")] = os.path.join(cls.dir, name)
            with open(path, "wb") as handle:
                handle.write(data)
        davit("convert", cls.names["source"], cls.names["image"])
        davit("build", cls.names["tar"], "-o", cls.dir + "/built")
        cls.names["boot"] = cls.dir + "/built/image.boot"

    def check(self, table, **more):
        names = self.names | more
        env = {key: value for key, value in os.environ.items() if not key.startswith("DAVIT_") and key != "IMAGE_PULL_AUTH"}
        for line, code, *words in table:
            with self.subTest(line):
                program, *arguments = line.format(**names).split()
                result = subprocess.run([os.path.join(BIN, program), *arguments], capture_output=True, text=True, timeout=60, env=env, cwd=self.dir)
                said = result.stderr
                self.assertEqual(result.returncode, code, said)
                self.assertEqual(result.stdout, "")
                for word in words:
                    options = word.format(**names).split("|")
                    self.assertTrue([option for option in options if option in said], f"{word!r} is not in {said!r}")
                # "program: what and why", and a next step: a line of its own or in parentheses.
                self.assertTrue(said.startswith(program), said)
                first, *rest = said.rstrip("\n").split("\n")
                self.assertTrue(first.endswith(")") or (rest and all(line.startswith("  ") for line in rest)), said)
                self.assertLess(len(said), 1000)
                self.assertNotIn("terminate called", said)

    def test_the_command_line(self):
        self.check(COMMAND_LINE)

    def test_files(self):
        self.check(FILES)

    def test_images(self):
        with docker_registry(self.dir) as registry:
            self.check(IMAGES, registry=registry)

    def test_the_daemon_is_not_there(self):
        self.check(DAEMON)

    @unittest.skipIf(ROOT, "root may read everything")
    def test_files_that_may_not_be_read(self):
        secret = os.path.join(self.dir, "secret")
        with open(secret, "w"):
            os.chmod(secret, 0)
        self.check([("davit merge {secret} -o {out}", 1, "{secret}", "Permission denied", "check the permissions")], secret=secret)

    @unittest.skipUnless(ROOT, "needs another user to become")
    def test_files_that_another_user_may_not_read(self):
        secret = os.path.join(self.dir, "roots-own")
        with open(secret, "w"):
            os.chmod(secret, 0)
        os.chmod(self.dir, 0o755)
        binary = shutil.copy(os.path.join(BIN, "davit"), self.dir)
        result = subprocess.run([binary, "merge", secret, "-o", self.names["out"]], capture_output=True, text=True, user=65534, group=65534)
        self.assertEqual(result.returncode, 1, result.stderr)
        for word in (secret, "Permission denied", "check the permissions"):
            self.assertIn(word, result.stderr)

    def test_names_cannot_steer_the_terminal(self):
        result = davit("check", "evil\x1b[2J", ok=False)
        self.assertEqual(result.returncode, 2)
        self.assertNotIn(b"\x1b", result.stderr)
        result = davit("che\x1bck", ok=False)
        self.assertNotIn(b"\x1b", result.stderr)


if __name__ == "__main__":
    unittest.main()
