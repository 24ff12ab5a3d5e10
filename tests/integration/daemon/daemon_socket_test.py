#!/usr/bin/env python3
"""davitd's program and its API over the socket; nothing is mounted."""
import json
import os
import re
import socket
import stat
import subprocess
import unittest
import urllib.error
import urllib.request

from daemon_fixture import DAVITD, Daemon, davit, wait_for, workspace


def run(*words, env=None):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DAVIT_")}
    environment.update(env or {})
    return subprocess.run([DAVITD, *words], capture_output=True, text=True, env=environment, timeout=30, check=False)


class ProgramTest(unittest.TestCase):
    def setUp(self):
        context = workspace()
        self.dir = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(text)
        return path

    def test_check_config_prints_what_is_in_force(self):
        path = self.write("c.toml", '[cache]\nbudget_bytes = "1GiB"\n[registry]\nproxy = "http://u:hunter2@p:1"\n')
        result = run("--config", path, "--check-config", "--set", "cache.fetch_threads=3", env={"DAVIT_LOG_LEVEL": "debug"})
        self.assertEqual(result.returncode, 0, result.stderr)
        config = json.loads(result.stdout)
        self.assertEqual((config["cache"]["budget_bytes"], config["cache"]["fetch_threads"], config["log"]["level"]), ("1GiB", 3, "debug"))
        self.assertNotIn("hunter2", result.stdout)

    def test_wrong_configurations_end_with_2_and_say_why(self):
        cases = {
            ("--config", self.write("a.toml", "[cache]\nbugdet_bytes = 1\n")): "cache.budget_bytes",
            ("--config", self.write("b.json", '{"log":{"level":"loud"}}')): "log.level",
            ("--config", self.dir + "/none.toml"): "none.toml",
            ("--set", "x"): "=",
            ("--set", "cache.fill=perhaps"): "neither true nor false",
            ("--idle-exit", "5"): "unit",
            ("--no-such-option",): "--no-such-option",
        }
        for words, expected in cases.items():
            result = run(*words)
            self.assertEqual(result.returncode, 2, words)
            self.assertIn(expected, result.stderr, words)

    def test_a_directory_that_cannot_be_made_is_named(self):
        result = run("--state-dir", self.write("file", "") + "/state", "--socket", self.dir + "/s")
        self.assertEqual(result.returncode, 1)
        self.assertIn(self.dir + "/file", result.stderr)

    def test_idle_exit(self):
        result = run("--state-dir", self.dir + "/state", "--socket", self.dir + "/s", "--idle-exit", "100ms")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertFalse(os.path.exists(self.dir + "/s"))

    def test_one_daemon_per_state_directory(self):
        first = Daemon(self.dir).start()
        self.addCleanup(first.stop)
        second = run("--state-dir", self.dir + "/state", "--cache-dir", self.dir + "/cache", "--socket", self.dir + "/other.sock")
        self.assertEqual(second.returncode, 1, second.stderr)
        self.assertIn(f"{self.dir}/state is in use by process {first.process.pid}", second.stderr)
        self.assertEqual(first.call("GET", "/healthz")["state"], "running")
        first.kill()  # however it ends, the directory is free
        first.start()
        self.assertEqual(first.stop(), 0)

    def test_a_live_socket_is_not_taken_over(self):
        first = Daemon(self.dir).start()
        self.addCleanup(first.stop)
        second = run("--state-dir", self.dir + "/state2", "--socket", first.socket)
        self.assertEqual(second.returncode, 1, second.stderr)
        self.assertIn(f"process {first.process.pid} serves {first.socket}", second.stderr)
        self.assertEqual(first.call("GET", "/api/v1/daemon")["pid"], first.process.pid)
        first.kill()  # its socket stays, and is nobody's
        self.assertTrue(os.path.exists(first.socket))
        third = run("--state-dir", self.dir + "/state2", "--socket", first.socket, "--idle-exit", "100ms")
        self.assertEqual(third.returncode, 0, third.stderr)

    def test_commands_without_a_daemon_name_the_socket(self):
        result = davit("ps", "--socket", self.dir + "/none.sock", ok=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn(self.dir + "/none.sock", result.stderr)
        self.assertIn("is davitd running", result.stderr)


class SocketTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.space = workspace()
        cls.dir = cls.space.__enter__()
        cls.addClassCleanup(cls.space.__exit__, None, None, None)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            cls.metrics = f"127.0.0.1:{probe.getsockname()[1]}"
        cls.daemon = Daemon(cls.dir, api__metrics_address=cls.metrics).start("--log-format", "json")
        cls.addClassCleanup(cls.daemon.stop)

    def test_only_the_owner_may_open_the_socket(self):
        self.assertEqual(stat.S_IMODE(os.stat(self.daemon.socket).st_mode), 0o600)

    def test_info_and_log_level(self):
        self.assertEqual(self.daemon.call("GET", "/api/v1/daemon")["pid"], self.daemon.process.pid)
        self.assertEqual(self.daemon.call("PUT", "/api/v1/daemon", {"log_level": "warn"})["log_level"], "warn")
        self.assertEqual(self.daemon.call("PUT", "/api/v1/daemon", {"log_level": "debug"})["log_level"], "debug")
        self.assertIn("davitd", davit("info", "--socket", self.daemon.socket).stdout)
        self.assertTrue(davit("ps", "--socket", self.daemon.socket).stdout.startswith("ID"))

    def test_log_lines_are_json(self):
        for line in self.daemon.log_text().splitlines():
            self.assertIn("msg", json.loads(line))

    def test_errors(self):
        for method, path, body, status, code in [
                ("GET", "/api/v1/mounts/none", None, 404, "not_found"),
                ("POST", "/api/v1/mounts", "{", 400, "invalid_argument"),
                ("POST", "/api/v1/mounts", {"id": "../x", "source": "s", "mountpoint": "/m"}, 400, "invalid_argument"),
                ("POST", "/api/v1/mounts", {"id": "x", "source": "UPPER CASE", "mountpoint": "/m"}, 400, "invalid_argument"),
                ("POST", "/api/v1/mounts", {"id": "x", "source": "127.0.0.1:1/a:b", "mountpoint": "/m", "registry_auth": "no json"}, 400, "invalid_argument"),
                ("PUT", "/api/v1/mounts", None, 405, "unsupported"),
                ("GET", "/nothing", None, 404, "not_found")]:
            got, text, _ = self.daemon.request(method, path, body)
            self.assertEqual((got, json.loads(text)["code"]), (status, code), (method, path, text))

    def test_the_request_id_is_in_reply_and_log(self):
        status, text, headers = self.daemon.request("DELETE", "/api/v1/mounts/m?force=perhaps", headers={"X-Request-Id": "test-4711"})
        self.assertEqual((status, headers["X-Request-Id"], json.loads(text)["request_id"]), (400, "test-4711", "test-4711"))
        line = next(line for line in map(json.loads, self.daemon.log_text().splitlines()) if line.get("request") == "test-4711")
        self.assertEqual((line["msg"], line["status"]), ("API call", 400))
        # What HTTP itself refuses is answered in the same form.
        status, text, headers = self.daemon.request("POST", "/api/v1/mounts", "x" * (9 << 20))
        self.assertEqual((status, json.loads(text)["code"]), (413, "invalid_argument"))
        self.assertEqual(json.loads(text)["request_id"], headers["X-Request-Id"])

    def test_metrics(self):
        _, text, headers = self.daemon.request("GET", "/metrics")
        self.assertIn("text/plain", headers["Content-Type"])
        for name in ("davit_mounts", "davit_cache_bytes", 'davit_remote_requests_total{cause="demand"}', "process_resident_memory_bytes", "davit_build_info"):
            self.assertRegex(text, "(?m)^" + re.escape(name), name)
        families = {family["name"] for family in self.daemon.call("GET", "/api/v1/metrics")}
        self.assertIn("davit_mount_seconds", families)

    def test_tcp_serves_metrics_and_nothing_else(self):
        with urllib.request.urlopen(f"http://{self.metrics}/metrics") as reply:
            self.assertIn(b"davit_mounts 0", reply.read())
        with urllib.request.urlopen(f"http://{self.metrics}/healthz") as reply:
            self.assertEqual(json.load(reply)["state"], "running")
        for path in ("/api/v1/config", "/api/v1/mounts", "/"):
            with self.assertRaises(urllib.error.HTTPError) as raised:
                urllib.request.urlopen(f"http://{self.metrics}{path}")
            self.assertEqual(raised.exception.code, 404)
            raised.exception.close()

    def test_garbage_and_silence_do_no_harm(self):
        silent = []
        for data in (b"", b"GET", b"\x00" * 1000, b"POST /api/v1/mounts HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
                     b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"POST /api/v1/mounts HTTP/1.1\r\nContent-Length: 50\r\n\r\n{"):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self.daemon.socket)
            try:
                connection.sendall(data)
            except OSError:
                pass
            silent.append(connection)
        self.assertEqual(self.daemon.call("GET", "/healthz")["state"], "running")
        for connection in silent:
            connection.close()

    def test_config_and_cache(self):
        self.assertEqual(self.daemon.call("GET", "/api/v1/config")["api"]["socket"], self.daemon.socket)
        self.assertEqual(self.daemon.call("GET", "/api/v1/cache")["blobs"], [])
        self.assertEqual(self.daemon.call("POST", "/api/v1/cache/evict", {"bytes": 1})["freed_bytes"], 0)
        self.assertEqual(self.daemon.call("GET", "/api/v1/metrics/inflight"), [])

    def test_a_mount_that_fails_says_why(self):
        point = os.path.join(self.dir, "point")
        os.makedirs(point, exist_ok=True)
        status, text, _ = self.daemon.request("POST", "/api/v1/mounts", {"id": "bad", "source": f"oci:{self.dir}/none:x", "mountpoint": point})
        self.assertEqual(status, 404, text)
        self.assertIn(self.dir + "/none", json.loads(text)["message"])
        failed = wait_for(lambda: self.daemon.call("GET", "/api/v1/mounts/bad"), 5, "failed mount")
        self.assertEqual((failed["state"], failed["error_code"]), ("failed", "not_found"))
        self.daemon.call("DELETE", "/api/v1/mounts/bad")


if __name__ == "__main__":
    unittest.main()
