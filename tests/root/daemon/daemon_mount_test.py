#!/usr/bin/env python3
"""davitd and `davit mount` with real mounts of an image in docker-registry."""
import base64
import concurrent.futures
import errno
import glob
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import unittest

from daemon_fixture import Daemon, Registry, davit, is_mounted, make_rafs, wait_for, workspace

SMALL = {"etc/hello": b"hello\n", "etc/empty": b""}
BIG = {f"data/{n}": random.Random(n).randbytes(1_500_000 + n) for n in range(12)}
FILES = {**SMALL, **BIG}


def read(path):
    with open(path, "rb") as handle:
        return handle.read()


class DaemonMountTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.space = workspace()
        cls.shared = cls.space.__enter__()
        cls.addClassCleanup(cls.space.__exit__, None, None, None)
        cls.registry = Registry(cls.shared).start()
        cls.addClassCleanup(cls.registry.stop)
        cls.image = f"{cls.registry.host}/test/image:v1"
        make_rafs(cls.shared, FILES, cls.image)

    def setUp(self):
        context = workspace()
        self.dir = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.daemon = Daemon(self.dir)
        self.addCleanup(lambda: self.daemon.process and self.daemon.process.poll() is None and self.daemon.stop())

    def point(self, name="mnt"):
        path = os.path.join(self.dir, name)
        if not is_mounted(path):  # a dead mount is no directory to mkdir
            os.makedirs(path, exist_ok=True)
        return path

    def mount(self, id="m", point=None, **more):
        return self.daemon.mount(id, self.image, point or self.point(), plain_http=True, **more)

    def check_content(self, point):
        for name, data in FILES.items():
            self.assertEqual(read(os.path.join(point, name)), data, name)

    def test_mount_read_unmount(self):
        self.daemon.start()
        info = self.mount()
        self.assertEqual(info["data_path"], "fuse")
        self.assertRegex(info["manifest_digest"], "^sha256:[0-9a-f]{64}$")
        self.check_content(self.point())
        again = self.daemon.call("POST", "/api/v1/mounts", {"id": "m", "source": self.image, "mountpoint": self.point(), "plain_http": True})
        self.assertEqual(again["mounted_at_unix"], info["mounted_at_unix"])
        status, text, _ = self.daemon.request("POST", "/api/v1/mounts", {"id": "m", "source": self.image + "x", "mountpoint": self.point(), "plain_http": True})
        self.assertEqual((status, json.loads(text)["code"]), (409, "already_exists"))
        status, text, _ = self.daemon.request("POST", "/api/v1/mounts", {"id": "n", "source": self.image, "mountpoint": self.point(), "plain_http": True})
        self.assertEqual(status, 409, text)
        self.daemon.call("DELETE", "/api/v1/mounts/m")
        self.assertFalse(is_mounted(self.point()))
        self.daemon.call("DELETE", "/api/v1/mounts/m")
        self.assertEqual(self.daemon.call("GET", "/api/v1/mounts"), [])
        kinds = [event["kind"] for event in self.daemon.call("GET", "/api/v1/events")]
        self.assertIn("mounted", kinds)
        self.assertIn("unmounted", kinds)
        self.assertEqual(os.listdir(os.path.join(self.dir, "state/mounts")), [])

    def test_busy_mount_needs_force(self):
        self.daemon.start()
        self.mount()
        held = os.open(os.path.join(self.point(), "etc/hello"), os.O_RDONLY)
        status, text, _ = self.daemon.request("DELETE", "/api/v1/mounts/m")
        self.assertEqual((status, json.loads(text)["code"]), (412, "failed_precondition"))
        self.assertEqual(self.daemon.call("GET", "/api/v1/mounts/m")["state"], "mounted")
        self.assertEqual(os.read(held, 100), b"hello\n")
        # The refusal was the unmount's: the mount is as before, also for who asks for it again.
        body = {"id": "m", "source": self.image, "mountpoint": self.point(), "plain_http": True}
        status, text, _ = self.daemon.request("POST", "/api/v1/mounts", body)
        self.assertEqual((status, json.loads(text)["state"]), (200, "mounted"), text)
        self.assertNotIn("error", self.daemon.call("GET", "/api/v1/mounts/m"))
        self.daemon.call("DELETE", "/api/v1/mounts/m?force=true")
        self.assertFalse(is_mounted(self.point()))
        with self.assertRaises(OSError):
            os.close(held)

    def test_mounted_again_at_once_fetches_no_metadata(self):
        self.daemon.start()
        point = self.point()
        seen = set()
        for _ in range(3):  # also before the metadata has become durable
            self.mount("m", point)
            (boot,) = glob.glob(os.path.join(self.dir, "state/images/*/image.boot"))
            seen.add(os.stat(boot).st_mtime_ns)
            self.daemon.call("DELETE", "/api/v1/mounts/m")
        self.assertEqual(len(seen), 1)

    def test_many_mounts_share_one_copy(self):
        self.daemon.start()
        points = [self.point(f"m{n}") for n in range(8)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: self.mount(f"m{n}", points[n], fill=False), range(8)))
            list(pool.map(self.check_content, points))
        cache = self.daemon.call("GET", "/api/v1/cache")
        stored = sum(blob["bytes_total"] for blob in cache["blobs"])
        self.assertLess(cache["fetched_bytes"], stored * 1.1)  # not eight times
        self.assertEqual(len(os.listdir(os.path.join(self.dir, "state/images"))), 1)
        for n in range(8):
            self.daemon.call("DELETE", f"/api/v1/mounts/m{n}")

    def test_ready_complete_needs_no_registry_afterwards(self):
        registry = Registry(self.dir).start()
        self.addCleanup(registry.stop)
        image = f"{registry.host}/own/image:v1"
        make_rafs(self.dir, FILES, image)
        self.daemon.start()
        info = self.daemon.mount("m", image, self.point(), plain_http=True, ready="complete")
        self.assertTrue(info["complete"])
        self.assertEqual(info["bytes_ready"], info["bytes_total"])
        registry.stop()
        self.check_content(self.point())
        self.assertIn("complete", [event["kind"] for event in self.daemon.call("GET", "/api/v1/events")])

    def test_prefetch_of_a_directory(self):
        self.daemon.start()
        self.mount(fill=False)
        status, text, _ = self.daemon.request("POST", "/api/v1/mounts/m/prefetch", {"paths": ["/nowhere"]})
        self.assertEqual((status, json.loads(text)["code"]), (404, "not_found"))
        self.daemon.call("POST", "/api/v1/mounts/m/prefetch", {"paths": ["/data"]})
        wanted = sum(len(data) for data in BIG.values())
        wait_for(lambda: self.daemon.call("GET", "/api/v1/mounts/m")["bytes_ready"] >= wanted, 30, "prefetch")

    def test_restart_brings_mounts_back_without_registry(self):
        registry = Registry(self.dir).start()
        self.addCleanup(registry.stop)
        image = f"{registry.host}/own/image:v1"
        make_rafs(self.dir, FILES, image)
        self.daemon.start()
        before = self.daemon.mount("m", image, self.point(), plain_http=True, ready="complete")
        self.assertEqual(self.daemon.stop(), 0)
        self.assertFalse(is_mounted(self.point()))
        registry.stop()
        self.daemon.start()
        after = self.daemon.call("GET", "/api/v1/mounts/m")
        self.assertEqual((after["state"], after["manifest_digest"]), ("mounted", before["manifest_digest"]))
        self.check_content(self.point())

    def test_restart_keeps_the_digest_when_the_tag_moved(self):
        registry = Registry(self.dir).start()
        self.addCleanup(registry.stop)
        image = f"{registry.host}/own/image:v1"
        make_rafs(self.dir, FILES, image)
        self.daemon.start()
        before = self.daemon.mount("m", image, self.point(), plain_http=True)
        self.daemon.stop()
        make_rafs(self.dir, {"etc/hello": b"other\n"}, image)
        self.daemon.start()
        self.assertEqual(self.daemon.call("GET", "/api/v1/mounts/m")["manifest_digest"], before["manifest_digest"])
        self.assertEqual(read(self.point() + "/etc/hello"), b"hello\n")
        new = self.daemon.mount("new", image, self.point("new"), plain_http=True)
        self.assertNotEqual(new["manifest_digest"], before["manifest_digest"])
        self.assertEqual(read(self.point("new") + "/etc/hello"), b"other\n")

    def test_kill_while_readers_run(self):
        self.daemon.start()
        self.mount()
        wrong = []
        stop = threading.Event()

        def reader(seed):
            choice = random.Random(seed)
            names = list(FILES)
            while not stop.is_set():
                name = choice.choice(names)
                try:
                    if read(os.path.join(self.point(), name)) != FILES[name]:
                        wrong.append(name)
                except OSError as error:
                    # The mount is dead, gone, or not there yet; never other bytes.
                    if error.errno not in (errno.ENOTCONN, errno.ENOENT, errno.EIO, errno.ECONNABORTED):
                        wrong.append(str(error))
                    time.sleep(0.01)

        threads = [threading.Thread(target=reader, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                time.sleep(0.3)
                self.daemon.kill()
                self.assertTrue(is_mounted(self.point()))  # dead
                self.daemon.start()
                self.assertEqual(read(self.point() + "/etc/hello"), b"hello\n")
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        self.assertFalse(any(thread.is_alive() for thread in threads))
        self.assertEqual(wrong, [])
        self.check_content(self.point())

    def test_dead_mount_of_another_run_is_cleared(self):
        self.daemon.start()
        self.mount()
        self.daemon.kill()
        other = Daemon(os.path.join(self.dir, "other"))
        os.makedirs(other.root)
        other.start()
        self.addCleanup(other.stop)
        other.mount("x", self.image, self.point(), plain_http=True)
        self.assertEqual(read(self.point() + "/etc/hello"), b"hello\n")
        other.call("DELETE", "/api/v1/mounts/x")
        self.assertFalse(is_mounted(self.point()))

    def test_keep_and_forget_on_stop(self):
        self.daemon.start("--on-stop", "keep")
        self.mount()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertTrue(is_mounted(self.point()))
        with self.assertRaises(OSError) as raised:
            os.listdir(self.point())
        self.assertEqual(raised.exception.errno, errno.ENOTCONN)
        self.daemon.start("--on-stop", "forget")
        self.assertEqual(read(self.point() + "/etc/hello"), b"hello\n")
        self.assertEqual(self.daemon.stop(), 0)
        self.assertFalse(is_mounted(self.point()))
        self.daemon.start()
        self.assertEqual(self.daemon.call("GET", "/api/v1/mounts"), [])

    def test_stop_with_open_files_ends(self):
        self.daemon.start()
        self.mount()
        held = os.open(self.point() + "/etc/hello", os.O_RDONLY)
        began = time.monotonic()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertLess(time.monotonic() - began, 20)
        self.assertFalse(is_mounted(self.point()))
        with self.assertRaises(OSError):
            os.close(held)

    def test_unmounted_by_somebody_else(self):
        self.daemon.start()
        self.mount()
        subprocess.run(["umount", self.point()], check=True)
        info = wait_for(lambda: (lambda i: i["state"] == "failed" and i)(self.daemon.call("GET", "/api/v1/mounts/m")), 10, "notice")
        self.assertIn("somebody else", info["error"])
        self.mount()
        self.assertEqual(read(self.point() + "/etc/hello"), b"hello\n")

    def test_registry_away_readers_wait_and_api_answers(self):
        registry = Registry(self.dir).start()
        self.addCleanup(registry.stop)
        image = f"{registry.host}/own/image:v1"
        make_rafs(self.dir, FILES, image)
        self.daemon = Daemon(self.dir, fuse__hung_io_after="500ms", cache__fill="false")
        self.daemon.start()
        self.daemon.mount("m", image, self.point(), plain_http=True)
        registry.process.send_signal(signal.SIGSTOP)
        got = []
        thread = threading.Thread(target=lambda: got.append(read(self.point() + "/data/1")))
        thread.start()
        try:
            wait_for(lambda: any(io["hung"] for io in self.daemon.call("GET", "/api/v1/metrics/inflight")), 10, "hung request")
            wait_for(lambda: "hung_io" in [e["kind"] for e in self.daemon.call("GET", "/api/v1/events")], 10, "hung event")
            _, text, _ = self.daemon.request("GET", "/metrics")
            self.assertRegex(text, r"(?m)^davit_fuse_hung_requests [1-9]")
            # Mounts that wait for the registry leave the API free.
            for n in range(40):
                self.daemon.request("POST", "/api/v1/mounts", {"id": f"w{n}", "source": image, "mountpoint": self.point(f"w{n}"), "plain_http": True}) \
                    if n < 1 else threading.Thread(target=self.daemon.request, args=("POST", "/api/v1/mounts", {
                        "id": f"w{n}", "source": image, "mountpoint": self.point(f"w{n}"), "plain_http": True}), daemon=True).start()
            began = time.monotonic()
            self.daemon.call("GET", "/api/v1/mounts")
            self.daemon.call("GET", "/api/v1/cache")
            self.daemon.request("GET", "/metrics")
            self.assertLess(time.monotonic() - began, 2)
        finally:
            registry.process.send_signal(signal.SIGCONT)
            thread.join(60)
        self.assertEqual(got, [BIG["data/1"]])
        warned = [line for line in self.daemon.log_text().splitlines() if "a request of the kernel hangs" in line]
        self.assertEqual(len(warned), len(set(warned)))

    def test_private_images(self):
        registry = Registry(self.dir, login=True).start()
        self.addCleanup(registry.stop)
        image = f"{registry.host}/own/image:v1"
        auth = json.dumps({"auths": {registry.host: {"auth": base64.b64encode(b"davit:secret").decode()}}})
        make_rafs(self.dir, FILES, image, env={"IMAGE_PULL_AUTH": base64.b64encode(b"davit:secret").decode()})
        self.daemon = Daemon(self.dir, scheduler__demand_patience="2s")
        self.daemon.start()
        self.daemon.mount("m", image, self.point(), plain_http=True, registry_auth=auth, fill=False)
        self.assertEqual(read(self.point() + "/data/1"), BIG["data/1"])
        # Whoever has no access gets none, although all of it would be local.
        request = {"id": "thief", "source": image, "mountpoint": self.point("thief"), "plain_http": True}
        status, text, _ = self.daemon.request("POST", "/api/v1/mounts", request)
        self.assertEqual((status, json.loads(text)["code"]), (401, "unauthenticated"))
        wrong = json.dumps({"auths": {registry.host: {"auth": base64.b64encode(b"davit:wrong").decode()}}})
        status, text, _ = self.daemon.request("POST", "/api/v1/mounts", {**request, "registry_auth": wrong})
        self.assertEqual(status, 401, text)
        # After a restart there is no secret: what is local can be read, the rest once it is renewed.
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.daemon.call("GET", "/api/v1/mounts/m")["state"], "mounted")
        self.assertEqual(read(self.point() + "/data/1"), BIG["data/1"])
        with self.assertRaises(OSError):
            read(self.point() + "/data/9")
        self.daemon.mount("m", image, self.point(), plain_http=True, registry_auth=auth, fill=False)
        self.assertEqual(read(self.point() + "/data/9"), BIG["data/9"])
        for where in (os.path.join(self.dir, "state/mounts"), os.path.join(self.dir, "state/images")):
            for base, _, names in os.walk(where):
                for name in names:
                    self.assertNotIn(b"ZGF2aXQ6c2VjcmV0", read(os.path.join(base, name)))
        self.assertNotIn("ZGF2aXQ6c2VjcmV0", self.daemon.log_text())

    def test_unmount_cancels_a_mount_in_progress(self):
        registry = Registry(self.dir).start()
        self.addCleanup(registry.stop)
        image = f"{registry.host}/own/image:v1"
        make_rafs(self.dir, FILES, image)
        self.daemon.start()
        registry.process.send_signal(signal.SIGSTOP)
        try:
            request = {"id": "m", "source": image, "mountpoint": self.point(), "plain_http": True}
            poster = threading.Thread(target=self.daemon.request, args=("POST", "/api/v1/mounts", request))
            poster.start()
            wait_for(lambda: [m["state"] for m in self.daemon.call("GET", "/api/v1/mounts")] == ["mounting"], 10, "mounting")
            status, text, _ = self.daemon.request("POST", "/api/v1/mounts", request)
            self.assertEqual((status, json.loads(text)["code"]), (423, "aborted"))
            began = time.monotonic()
            self.daemon.call("DELETE", "/api/v1/mounts/m")
            self.assertLess(time.monotonic() - began, 5)
            poster.join(10)
            self.assertEqual(self.daemon.call("GET", "/api/v1/mounts"), [])
        finally:
            registry.process.send_signal(signal.SIGCONT)

    def test_low_descriptor_limit_is_a_warning(self):
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.daemon.process = None
        words = ["prlimit", "--nofile=1024:1024"]
        original = subprocess.Popen
        del soft, hard

        def limited(command, **options):
            return original(words + command, **options)
        subprocess.Popen = limited
        try:
            self.daemon.start()
        finally:
            subprocess.Popen = original
        self.assertIn("limit of open files is low", self.daemon.log_text())
        self.mount()
        self.check_content(self.point())

    def test_two_daemons_on_one_state(self):
        self.daemon.start()
        second = Daemon(self.dir)
        second.socket = os.path.join(self.dir, "second.sock")
        second.log = os.path.join(self.dir, "second.log")
        second.start(wait=False)
        self.assertEqual(second.process.wait(20), 1)
        self.assertIn(str(self.daemon.process.pid), second.log_text())

    def test_two_daemons_on_one_cache(self):
        """Each has a state directory of its own, so it is the cache's lock that refuses the second."""
        cache = os.path.join(self.dir, "cache")
        self.daemon.settings = {"cache__directory": cache}
        self.daemon.start()
        self.mount()
        self.assertEqual(read(self.point() + "/etc/hello"), b"hello\n")
        other = os.path.join(self.dir, "other")
        os.makedirs(other)
        second = Daemon(other, cache__directory=cache)
        second.start(wait=False)
        self.addCleanup(lambda: second.process.poll() is None and second.kill())
        self.assertEqual(second.process.wait(20), 1, second.log_text())
        said = second.log_text()
        self.assertIn(f"cache directory {cache} is in use by process {self.daemon.process.pid}\n", said)
        self.assertIn("configure another cache directory", said)
        # The first one is not disturbed: what it has it reads, and it caches more.
        self.assertEqual(self.daemon.call("GET", "/api/v1/daemon")["state"], "running")
        self.check_content(self.point())
        self.mount("n", self.point("another"), ready="complete")
        self.assertEqual(self.daemon.stop(), 0)
        # Nobody owns it now: the other one may have it, with all that is in it.
        second.start()
        second.mount("m", self.image, self.point(), plain_http=True, ready="complete")
        self.check_content(self.point())
        self.assertEqual(second.call("GET", "/api/v1/cache")["fetched_bytes"], 0)
        self.assertEqual(second.stop(), 0)


class CommandLineTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.space = workspace()
        cls.shared = cls.space.__enter__()
        cls.addClassCleanup(cls.space.__exit__, None, None, None)
        cls.image = f"oci:{cls.shared}/layout:v1"
        make_rafs(cls.shared, FILES, cls.image)

    def setUp(self):
        context = workspace()
        self.dir = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.point = os.path.join(self.dir, "mnt")
        os.makedirs(self.point)
        self.env = {"DAVIT_NODE_STATE_DIR": self.dir + "/state", "DAVIT_API_SOCKET": self.dir + "/s"}

    def run_davit(self, *words, ok=True):
        return davit(*words, ok=ok, env=self.env)

    def test_mount_without_a_daemon(self):
        out = self.run_davit("mount", self.image, self.point, "--ready", "complete", "--output", "json").stdout
        info = json.loads(out)
        pid = json.loads(self.run_davit("info", "--output", "json").stdout)["pid"]
        self.addCleanup(lambda: os.path.exists(f"/proc/{pid}") and os.kill(pid, signal.SIGTERM))
        self.assertTrue(info["complete"])
        self.assertEqual(read(self.point + "/etc/hello"), b"hello\n")
        self.assertIn(self.point, self.run_davit("ps").stdout)
        self.assertEqual(json.loads(self.run_davit("ps", "--output", "json").stdout)[0]["id"], info["id"])
        self.assertIn(info["manifest_digest"], self.run_davit("info", self.point).stdout)
        self.run_davit("prefetch", self.point, "/data")
        self.assertIn("all", self.run_davit("cache", "ls").stdout)
        self.assertIn("freed", self.run_davit("cache", "evict", "1GiB").stdout)
        self.assertEqual(read(self.point + "/data/3"), BIG["data/3"])
        self.run_davit("umount", self.point)
        self.assertFalse(is_mounted(self.point))
        failed = self.run_davit("umount", self.point, ok=False)
        self.assertEqual(failed.returncode, 1)
        self.assertIn("davit ps", failed.stderr)

    def test_two_first_mounts_at_once_share_a_daemon(self):
        points = [self.point, os.path.join(self.dir, "other")]
        os.makedirs(points[1])
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda point: self.run_davit("mount", self.image, point), points))
        pid = json.loads(self.run_davit("info", "--output", "json").stdout)["pid"]
        self.addCleanup(lambda: os.path.exists(f"/proc/{pid}") and os.kill(pid, signal.SIGTERM))
        self.assertEqual(len(json.loads(self.run_davit("ps", "--output", "json").stdout)), 2)
        for point in points:
            self.assertEqual(read(point + "/etc/hello"), b"hello\n")
            self.run_davit("umount", point)

    def test_foreground(self):
        environment = {**os.environ, **self.env}
        process = subprocess.Popen([os.path.join(os.environ["DAVIT_BIN_DIR"], "davit"), "mount", self.image, self.point, "--foreground"],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        try:
            self.assertIn("is mounted at", process.stdout.readline())
            self.assertEqual(read(self.point + "/data/1"), BIG["data/1"])
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(20), 0)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()
        self.assertFalse(is_mounted(self.point))

    def test_errors_name_the_thing_and_the_next_step(self):
        refused = self.run_davit("mount", "oci:/nowhere:x", self.point, ok=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("/nowhere", refused.stderr)
        pid = json.loads(self.run_davit("info", "--output", "json").stdout)["pid"]
        self.addCleanup(lambda: os.path.exists(f"/proc/{pid}") and os.kill(pid, signal.SIGTERM))
        # Whoever comes later sees it, too; and it is in nobody's way.
        listed = self.run_davit("ps").stdout
        self.assertRegex(listed, r"(?m)^\S+ +failed .*oci:/nowhere:x$")
        self.assertRegex(listed, r"(?m)^    .*/nowhere")
        self.run_davit("mount", self.image, self.point)
        self.assertEqual(read(self.point + "/etc/hello"), b"hello\n")
        self.assertNotIn("failed", self.run_davit("ps").stdout)
        self.run_davit("umount", self.point)
        refused = self.run_davit("mount", self.image, self.dir + "/missing", ok=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn(self.dir + "/missing", refused.stderr)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
