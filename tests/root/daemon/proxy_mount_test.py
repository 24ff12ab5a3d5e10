#!/usr/bin/env python3
"""`registry.proxy` of davitd's configuration, through a real proxy, from `davit mount` to the bytes that are read."""
import json
import os
import random
import subprocess
import sys
import unittest

from daemon_fixture import DAVITD, Daemon, Registry, davit, is_mounted, make_rafs, workspace
from network_fixture import Proxy, free_port

FILES = {"etc/hello": b"hello\n", "data/big": random.Random(8).randbytes(3_000_000)}
NO_PROXIES = {name: "" for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")}


class ProxyMountTest(unittest.TestCase):
    def setUp(self):
        context = workspace()
        self.dir = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.point = os.path.join(self.dir, "mnt")
        os.makedirs(self.point)
        self.registry = Registry(self.dir).start()
        self.addCleanup(self.registry.stop)
        self.image = f"{self.registry.host}/team/app:v1"
        make_rafs(self.dir, FILES, self.image, env=NO_PROXIES)

    def config(self, proxy):
        path = os.path.join(self.dir, "davit.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'version = 1\n[registry]\nproxy = "{proxy}"\n')
        os.chmod(path, 0o600)
        return path

    def daemon(self, proxy, **env):
        daemon = Daemon(self.dir)
        self.addCleanup(daemon.stop)
        return daemon.start("--config", self.config(proxy), env={**NO_PROXIES, **env})

    def proxy(self, **options):
        proxy = Proxy(self.dir, **options).start()
        self.addCleanup(proxy.stop)
        return proxy

    def mount(self, daemon, *options, ok=True):
        return davit("mount", self.image, self.point, "--plain-http", "--socket", daemon.socket, *options, env=NO_PROXIES, ok=ok)

    def check_content(self):
        for name, data in FILES.items():
            with open(os.path.join(self.point, name), "rb") as file:
                self.assertTrue(file.read() == data, name)

    def test_every_request_goes_through_it(self):
        proxy = self.proxy(login=("someone", "hushhush"))
        # The environment's is not asked: the configuration comes first.
        daemon = self.daemon(proxy.url, HTTP_PROXY=f"http://127.0.0.1:{free_port()}")
        self.mount(daemon)
        self.check_content()
        seen = proxy.requests()
        for kind in ("manifests", "blobs"):
            self.assertTrue(any(f"GET http://{self.registry.host}/v2/team/app/{kind}/" in request for request in seen), (kind, seen))
        davit("umount", self.point, "--socket", daemon.socket)
        self.assertFalse(is_mounted(self.point))
        # Its password is neither in the log nor in what --check-config prints.
        self.assertNotIn("hushhush", daemon.log_text())
        shown = subprocess.run([DAVITD, "--check-config", "--config", self.config(proxy.url)], capture_output=True, text=True, check=True)
        self.assertNotIn("hushhush", shown.stdout + shown.stderr)
        self.assertIn(f"127.0.0.1:{proxy.port}", json.loads(shown.stdout)["registry"]["proxy"])

    def test_hosts_in_no_proxy_are_reached_without_it(self):
        proxy = self.proxy()
        daemon = self.daemon(proxy.url, NO_PROXY="127.0.0.1")
        self.mount(daemon)
        self.check_content()
        self.assertEqual(proxy.requests(), [])

    def test_a_proxy_that_is_away_is_named(self):
        port = free_port()
        daemon = self.daemon(f"http://someone:hushhush@127.0.0.1:{port}")
        refused = self.mount(daemon, ok=False)
        self.assertEqual(refused.returncode, 1, refused.stderr)
        for text in (self.image.rpartition(":")[0], "the configuration names the proxy", str(port), "NO_PROXY"):
            self.assertIn(text, refused.stderr)
        self.assertNotIn("hushhush", refused.stderr + daemon.log_text())
        self.assertFalse(is_mounted(self.point))


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    if os.readlink("/proc/self/ns/mnt") == os.readlink(f"/proc/{os.getppid()}/ns/mnt"):
        os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv])
    unittest.main()
