#!/usr/bin/env python3
"""The command line through a real proxy, over HTTP/2 and with a client certificate."""
import os
import random
import tempfile
import unittest

from daemon_fixture import Registry, davit, write_layout
from network_fixture import Certificates, Proxy, TlsRegistry, free_port

FILES = {"etc/hello": b"hello\n", "data/big": random.Random(5).randbytes(3_000_000)}
NO_PROXIES = {name: "" for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")}


class NetworkTest(unittest.TestCase):
    def setUp(self):
        space = tempfile.TemporaryDirectory(prefix="davit-network-")
        self.addCleanup(space.cleanup)
        self.dir = space.name
        self.layout = os.path.join(self.dir, "layout")
        write_layout(self.layout, FILES)

    def env(self, **settings):
        return {**NO_PROXIES, **settings}

    def plain(self):
        registry = Registry(self.dir).start()
        self.addCleanup(registry.stop)
        return registry

    def tls(self, **options):
        self.certificates = Certificates(self.dir)
        registry = TlsRegistry(self.dir, self.certificates, **options).start()
        self.addCleanup(registry.stop)
        return registry

    def proxy(self, **options):
        proxy = Proxy(self.dir, **options).start()
        self.addCleanup(proxy.stop)
        return proxy

    def push_and_check(self, image, *options, env, ok=True):
        """Uploads, manifests and range reads of every chunk."""
        done = davit("convert", f"oci:{self.layout}:v1", image, "--platform", "linux/amd64", *options, env=env, ok=ok)
        if done.returncode == 0:
            done = davit("check", image, *options, env=env, ok=ok)
        return done

    def test_plain_http_through_a_proxy(self):
        registry, proxy = self.plain(), self.proxy()
        for number, name in enumerate(["http_proxy", "HTTP_PROXY", "ALL_PROXY"]):
            before = len(proxy.requests())
            self.push_and_check(f"{registry.host}/a/b{number}:v1", "--plain-http", env=self.env(**{name: proxy.url}))
            seen = proxy.requests()[before:]
            for method in ("GET", "PUT", "PATCH" if any(r.startswith("PATCH") for r in seen) else "POST"):
                self.assertTrue(any(r.startswith(f"{method} http://{registry.host}/v2/") for r in seen), (name, method, seen))

    def test_tls_through_a_proxy(self):
        registry, proxy = self.tls(), self.proxy()
        for name in ["https_proxy", "HTTPS_PROXY"]:
            before = len(proxy.requests())
            self.push_and_check(f"{registry.host}/a/{name.lower()}:v1", "--ca-file", self.certificates.ca, env=self.env(**{name: proxy.url}))
            seen = proxy.requests()[before:]
            self.assertGreater(len(seen), 0, name)
            for request in seen:
                self.assertTrue(request.startswith(f"CONNECT {registry.host} HTTP/1."), request)

    def test_no_proxy_and_the_other_scheme_s_proxy(self):
        registry, proxy = self.plain(), self.proxy()
        for no_proxy in ("127.0.0.1", "*", "10.0.0.0/8, 127.0.0.0/8"):
            self.push_and_check(f"{registry.host}/a/b:v1", "--plain-http", env=self.env(HTTP_PROXY=proxy.url, NO_PROXY=no_proxy))
            self.assertEqual(proxy.requests(), [], no_proxy)
        self.push_and_check(f"{registry.host}/a/b:v1", "--plain-http", env=self.env(HTTPS_PROXY=proxy.url))
        self.assertEqual(proxy.requests(), [])

    def test_a_proxy_with_a_login(self):
        registry, proxy = self.tls(), self.proxy(login=("someone", "hushhush"))
        image, trust = f"{registry.host}/a/b:v1", ("--ca-file", self.certificates.ca)
        self.push_and_check(image, *trust, env=self.env(HTTPS_PROXY=proxy.url))
        refused = davit("check", image, *trust, env=self.env(HTTPS_PROXY=f"http://127.0.0.1:{proxy.port}"), ok=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("407", refused.stderr)
        self.assertIn("proxy", refused.stderr)

    def test_a_proxy_that_is_away_is_named(self):
        registry = self.tls()
        port = free_port()
        away = davit("check", f"{registry.host}/a/b:v1", "--ca-file", self.certificates.ca,
                     env=self.env(HTTPS_PROXY=f"http://someone:hushhush@127.0.0.1:{port}"), ok=False)
        self.assertEqual(away.returncode, 1)
        self.assertIn(str(port), away.stderr)
        self.assertIn("proxy", away.stderr)
        self.assertNotIn("hushhush", away.stderr)

    def test_http2_and_connections_are_used_again(self):
        registry = self.tls()
        self.push_and_check(f"{registry.host}/a/b:v1", "--ca-file", self.certificates.ca, env=self.env())
        protocols, peers = registry.protocols(), registry.peers()
        self.assertGreater(len(protocols), 10)
        self.assertEqual(set(protocols), {"HTTP/2.0"})
        # Two programs ran; each keeps its connections over all its requests.
        self.assertGreater(len(peers), 10)
        self.assertLessEqual(len(set(peers)), len(peers) // 2, peers)

    def test_client_certificate_by_hosts_toml(self):
        registry = self.tls(need_client=True)
        image = f"{registry.host}/a/b:v1"
        refused = self.push_and_check(image, "--ca-file", self.certificates.ca, env=self.env(), ok=False)
        # TLS 1.3 refuses after the handshake: an alert or a broken connection, whichever is seen first.
        self.assertEqual(refused.returncode, 1)
        self.assertEqual(registry.protocols(), [])
        hosts = os.path.join(self.dir, "certs.d")
        own = os.path.join(hosts, registry.host)
        os.makedirs(own)
        with open(os.path.join(own, "hosts.toml"), "w", encoding="utf-8") as file:
            file.write(f'server = "https://{registry.host}"\nca = "{self.certificates.ca}"\n'
                       f'client = [["{self.certificates.client}", "{self.certificates.client_key}"]]\n')
        self.push_and_check(image, "--hosts-dir", hosts, env=self.env())
        # The older form: files beside each other, no hosts.toml.
        os.unlink(os.path.join(own, "hosts.toml"))
        for source, name in [(self.certificates.ca, "ca.crt"), (self.certificates.client, "me.cert"), (self.certificates.client_key, "me.key")]:
            os.symlink(source, os.path.join(own, name))
        davit("check", image, "--hosts-dir", hosts, env=self.env())
        self.assertEqual(set(registry.protocols()), {"HTTP/2.0"})


if __name__ == "__main__":
    unittest.main()
