#!/usr/bin/env python3
"""Readers of a mounted image while the registry is away, slow, lying, limiting, or ends tokens."""
import os
import sys
import threading
import time
import unittest

from faults_fixture import FaultCase, covers


class AwayTest(FaultCase):
    def test_away_for_two_seconds_readers_wait(self):
        self.start_daemon()
        point = self.mount()
        self.check_file(point, "data/0")
        self.registry.away()
        timer = threading.Timer(2, lambda: self.registry.away(False))
        timer.start()
        self.addCleanup(timer.join)
        took = self.check_all(point, readers=12)
        self.assertGreater(took, 1.8)
        self.assertLess(took, 15)

    def test_connections_cut_in_mid_body(self):
        self.start_daemon()
        point = self.mount()
        self.registry.fault("drip", bytes_per_second=400_000)
        stop = threading.Event()

        def outages():
            while not stop.wait(0.7):
                self.registry.away()
                time.sleep(0.3)
                self.registry.away(False)
        thread = threading.Thread(target=outages)
        thread.start()
        try:
            self.check_all(point, readers=12)
        finally:
            stop.set()
            thread.join()
        # A body really ended early, and somebody asked again for what was missing.
        asked = [one for one in self.registry.requests("/blobs/") if one["status"] == 206]
        cut = [(number, one, first + one["body_bytes"]) for number, one in enumerate(asked)
               for first, last in [map(int, one["range"].removeprefix("bytes=").split("-"))]
               if 0 < one["body_bytes"] < last + 1 - first]
        self.assertTrue(cut, asked)
        resumed = [one for number, one, missing in cut
                   if any(later["path"] == one["path"] and covers(later, missing) for later in asked[number + 1:])]
        self.assertTrue(resumed, asked)

    def test_a_registry_that_stops_answering_is_given_up_and_asked_again(self):
        self.start_daemon()
        point = self.mount()
        self.registry.fault("hang", times=3)
        took = self.check_all(point)
        self.check_hit()
        self.assertGreater(took, 0.9)  # the stall timeout

    def test_away_for_good_is_eio_with_its_cause_and_heals(self):
        self.start_daemon(scheduler__demand_patience="2s")
        point = self.mount()
        self.check_file(point, "data/0")
        self.registry.away()
        took = self.check_error(os.path.join(point, "data/7"))
        self.assertGreater(took, 1.5)
        line = self.log_lines("a request of the kernel failed")[0]
        self.assertIn("gave up after", line)
        self.assertIn(self.registry.host, line)
        self.check_file(point, "data/0")  # what is here is not touched by it
        self.registry.away(False)
        self.check_all(point)


class SlowTest(FaultCase):
    def test_a_drip_is_not_a_stall(self):
        self.start_daemon()
        point = self.mount()
        self.registry.fault("drip", bytes_per_second=300_000)
        took = self.check_all(point, readers=12)
        self.assertGreater(took, 1.5)  # longer than the stall timeout
        self.assertEqual(self.log_lines("a request of the kernel failed"), [])

    def test_every_answer_late(self):
        self.start_daemon()
        self.registry.fault("delay", delay_ms=300, path="")
        self.check_all(self.mount())


class LyingTest(FaultCase):
    LIES = {"short_body": {"offset": 10_000}, "reset": {"offset": 70_000}, "wrong_range": {}, "ignore_range": {}, "html": {},
            "garbage": {}, "no_digest": {}, "status": {"status": 500}, "redirect": {"location": "http://127.0.0.1:1/x"}}

    def test_each_lie_once_heals(self):
        self.start_daemon()
        point = self.mount()
        for (kind, fields), name in zip(self.LIES.items(), self.cold_names()):
            with self.subTest(kind):
                self.registry.clear()
                self.registry.fault(kind, times=1, **fields)
                self.check_direct(point, name)
                self.check_hit()
        self.registry.clear()
        self.check_all(point)

    def test_each_lie_for_good_is_eio_and_heals(self):
        self.start_daemon(scheduler__demand_patience="1s", scheduler__backoff_max="300ms")
        point = self.mount()
        for (kind, fields), name in zip(self.LIES.items(), self.cold_names()):
            if kind in ("no_digest", "short_body", "reset"):  # no lie about a range; these bring bytes
                continue
            with self.subTest(kind):
                self.registry.fault(kind, **fields)
                self.check_error(os.path.join(point, name))
                self.registry.clear()
                self.check_file(point, name)
        lines = self.log_lines("a request of the kernel failed")
        for cause in ("200 instead of 206", "HTTP status 500", "arrived damaged twice", "bytes at", "127.0.0.1:1"):
            self.assertTrue([line for line in lines if cause in line], f"{cause} not in {lines}")
        self.check_all(point)

    def test_short_bodies_for_good_are_read_piece_by_piece(self):
        self.start_daemon()
        self.registry.fault("short_body", offset=50_000)
        self.check_all(self.mount())

    def test_manifests(self):
        self.start_daemon(registry__retries="1", scheduler__demand_patience="1s", node__mount_timeout="10s")
        for kind, fields, codes, cause in (("wrong_digest", {}, ("data_loss",), "digest"),
                                           ("html", {}, ("invalid_argument", "data_loss"), "manifest"),
                                           ("garbage", {}, ("invalid_argument", "data_loss"), "digest"),
                                           ("status", {"status": 404}, ("not_found",), "v1"),
                                           ("status", {"status": 500}, ("unavailable",), "500")):
            with self.subTest(kind):
                self.registry.fault(kind, path="/manifests/", **fields)
                _, error = self.refuse_mount()
                self.assertIn(error["code"], codes, error)
                self.assertIn(cause, error["message"])
                self.assertIn(self.registry.host, error["message"])
                self.registry.clear()
        self.check_all(self.mount())


class RetryAfterTest(FaultCase):
    def check_obeyed(self, status):
        self.start_daemon()
        point = self.mount()
        self.check_file(point, "data/0")
        self.registry.forget_requests()
        self.registry.fault("status", times=1, status=status, retry_after=2)
        took = self.check_all(point, readers=8)
        self.assertGreater(took, 1.9)
        self.assertLess(took, 15)
        asked = self.registry.requests("/blobs/")
        limited = [one["seconds"] for one in asked if one["status"] == status]
        self.assertEqual(len(limited), 1)
        # Those that were on their way before the answer came back may still arrive.
        too_early = [one for one in asked if limited[0] + 0.3 < one["seconds"] < limited[0] + 1.95]
        self.assertEqual(too_early, [])
        self.assertTrue([one for one in asked if one["status"] == 206 and one["seconds"] > limited[0] + 1.95])

    def test_429(self):
        self.check_obeyed(429)

    def test_503(self):
        self.check_obeyed(503)

    def test_a_mount_waits_too(self):
        self.start_daemon()
        self.registry.fault("status", times=1, path="/manifests/", status=429, retry_after=2)
        began = time.monotonic()
        point = self.mount()
        self.assertGreater(time.monotonic() - began, 1.9)
        self.check_all(point)


class TokenTest(FaultCase):
    REGISTRY = ("--auth", "bearer", "--token-seconds", "1", "--user", "davit:secret")

    def mount_with_login(self):
        import base64
        import json
        login = base64.b64encode(b"davit:secret").decode()
        return self.mount(registry_auth=json.dumps({"auths": {self.registry.host: {"auth": login}}}))

    def test_tokens_that_end_while_readers_run(self):
        self.start_daemon(scheduler__max_requests_per_host="4", cache__max_request_bytes="256KiB")
        point = self.mount_with_login()
        self.registry.fault("drip", bytes_per_second=300_000)
        took = self.check_all(point, readers=4)
        self.assertGreater(took, 4)  # lives of a token
        tokens = {one["authorization"] for one in self.registry.requests("/blobs/")}
        self.assertGreaterEqual(len(tokens), 4, tokens)
        self.assertEqual(self.log_lines("a request of the kernel failed"), [])

    def test_a_registry_that_forgets_its_tokens(self):
        self.start_daemon()
        point = self.mount_with_login()
        for name in self.cold_names():
            self.registry.command("expire_tokens")
            self.check_direct(point, name)
        refused = [one for one in self.registry.requests("/blobs/") if one["status"] == 401]
        self.assertEqual(len(refused), len(self.FILES))

    def test_a_token_server_that_is_away_for_a_while(self):
        self.start_daemon()
        point = self.mount_with_login()
        self.registry.command("expire_tokens")
        self.registry.fault("status", times=3, path="/token", status=503)
        self.check_direct(point, next(self.cold_names()))
        self.check_all(point)
        self.check_hit()


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
