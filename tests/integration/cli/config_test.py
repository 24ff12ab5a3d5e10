#!/usr/bin/env python3
"""The commands that name an image go by the configuration: the file, the environment over it, and the
options over both."""
import base64
import json
import os
import stat
import tempfile
import unittest

from daemon_fixture import Registry, davit, write_layout
from network_fixture import Certificates, Proxy, TlsRegistry, free_port

NO_PROXIES = {name: "" for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")}
LINUX = ("--platform", "linux/amd64")


class ConfigCase(unittest.TestCase):
    def setUp(self):
        space = tempfile.TemporaryDirectory(prefix="davit-config-")
        self.addCleanup(space.cleanup)
        self.dir = space.name
        self.source = f"oci:{self.dir}/layout:v1"
        write_layout(os.path.join(self.dir, "layout"), {"etc/hello": b"hello\n"})

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def registry(self, **options):
        registry = Registry(self.dir, **options).start()
        self.addCleanup(registry.stop)
        return registry

    def config(self, name="davit.toml", section="registry", **settings):
        """A configuration file with these settings; its path."""
        with open(self.path(name), "w", encoding="utf-8") as file:
            # Texts, lists and truths look the same in TOML and JSON.
            file.write(f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        return self.path(name)

    def davit(self, *words, code=0, says="", **env):
        """Nothing of this machine's settings counts: its proxies, its user's credentials. One try is enough."""
        result = davit(*words, ok=False, env={**NO_PROXIES, "DOCKER_CONFIG": self.path("none"), "DAVIT_CONFIG": self.config("empty.toml"),
                                              "DAVIT_REGISTRY_RETRIES": "0", **env})
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertIn(says, result.stderr)
        return result

    def commands(self, image, rafs):
        """Every command that names an image, for an ordinary one and one of RAFS."""
        return [("convert", image, f"oci:{self.path('out')}:v1", *LINUX), ("copy", image, f"oci:{self.path('copy')}:v1"),
                ("check", rafs, *LINUX), ("check", rafs, *LINUX, "--source", image), ("inspect", rafs, *LINUX), ("stat", rafs, *LINUX),
                ("unpack", rafs, *LINUX, "-o", self.path("out.tar"))]


class MirrorTest(ConfigCase):
    def setUp(self):
        super().setUp()
        self.mirror = self.registry()
        plain = {"DAVIT_REGISTRY_PLAIN_HTTP_HOSTS": f"registry.example,{self.mirror.host}"}
        self.davit("copy", self.source, f"{self.mirror.host}/a/b:v1", **plain)
        self.davit("convert", self.source, f"{self.mirror.host}/a/b:rafs", *LINUX, **plain)
        # Nothing listens at the image's own host.
        self.host = f"127.0.0.1:{free_port()}"
        self.image, self.rafs = f"{self.host}/a/b:v1", f"{self.host}/a/b:rafs"
        self.hosts, self.no_hosts = self.path("certs.d"), self.path("empty.d")
        os.makedirs(os.path.join(self.hosts, self.host))
        os.makedirs(self.no_hosts)
        with open(os.path.join(self.hosts, self.host, "hosts.toml"), "w", encoding="utf-8") as file:
            file.write(f'[host."http://{self.mirror.host}"]\ncapabilities = ["pull", "resolve"]\n')

    def test_hosts_dir_of_the_file_counts_for_every_command(self):
        config = self.config(hosts_dir=self.hosts)
        for words in self.commands(self.image, self.rafs):
            with self.subTest(words[0]):
                self.davit(*words, code=1, says=self.host)
                self.davit(*words, DAVIT_CONFIG=config)
                self.davit(*words, "--config", config)

    def test_environment_over_file_and_option_over_both(self):
        check = ("check", self.rafs, *LINUX)
        good, wrong = self.config("good.toml", hosts_dir=self.hosts), self.config("wrong.toml", hosts_dir=self.no_hosts)
        self.davit(*check, DAVIT_REGISTRY_HOSTS_DIR=self.hosts)
        self.davit(*check, DAVIT_CONFIG=wrong, DAVIT_REGISTRY_HOSTS_DIR=self.hosts)
        self.davit(*check, code=1, says=self.host, DAVIT_CONFIG=good, DAVIT_REGISTRY_HOSTS_DIR=self.no_hosts)
        self.davit(*check, "--hosts-dir", self.hosts, DAVIT_CONFIG=wrong, DAVIT_REGISTRY_HOSTS_DIR=self.no_hosts)
        self.davit(*check, "--hosts-dir", self.no_hosts, code=1, says=self.host, DAVIT_CONFIG=good)
        self.davit(*check, "--config", good, DAVIT_CONFIG=wrong)
        # Paths of options may be relative, other than those of the file.
        self.davit(*check, "--hosts-dir", os.path.relpath(self.hosts), "--config", os.path.relpath(wrong))

    def test_hosts_of_the_option_come_to_those_of_the_file(self):
        mirrored = f"{self.mirror.host}/a/b:v1"
        other = f"oci:{self.path('copy')}:v1"
        config = self.config(plain_http_hosts=["registry.example"])
        self.davit("copy", mirrored, other, "--config", config, code=1, says="TLS")
        self.davit("copy", mirrored, other, "--config", config, "--plain-http-host", self.mirror.host)
        config = self.config(plain_http_hosts=[self.mirror.host])
        self.davit("copy", mirrored, other, "--config", config, "--plain-http-host", "registry.example")
        self.davit("copy", mirrored, other, "--config", config, code=1, says="TLS", DAVIT_REGISTRY_PLAIN_HTTP_HOSTS="registry.example")

    def test_proxy(self):
        proxy = Proxy(self.dir).start()
        self.addCleanup(proxy.stop)
        image = f"{self.mirror.host}/a/b:rafs"
        config = self.config(proxy=proxy.url, plain_http_hosts=[self.mirror.host])
        self.davit("check", image, *LINUX, DAVIT_REGISTRY_PLAIN_HTTP_HOSTS=self.mirror.host)
        self.assertEqual(proxy.requests(), [])
        self.davit("check", image, *LINUX, "--config", config)
        self.assertTrue([line for line in proxy.requests() if f"http://{self.mirror.host}/v2/a/b/manifests/rafs" in line], proxy.requests())


class TrustTest(ConfigCase):
    def test_authority_and_client_certificate(self):
        certificates = Certificates(self.dir)
        registry = TlsRegistry(self.dir, certificates, need_client=True).start()
        self.addCleanup(registry.stop)
        push = ("copy", self.source, f"{registry.host}/a/b:v1")
        own = {"client_cert_file": certificates.client, "client_key_file": certificates.client_key}
        self.davit(*push, code=1)
        self.davit(*push, "--config", self.config(ca_files=[certificates.ca]), code=1)
        self.davit(*push, "--config", self.config(**own), code=1, says="certificate")
        self.assertEqual(registry.protocols(), [])
        self.davit(*push, "--config", self.config(ca_files=[certificates.ca], **own))
        # The option's authorities come to those of the file; --insecure needs none.
        self.davit(*push, "--config", self.config(**own), "--ca-file", certificates.ca)
        self.davit(*push, "--config", self.config(**own), "--insecure")
        self.davit(*push, "--config", self.config(skip_verify=True, **own))

    def test_credentials(self):
        registry = self.registry(login=True)
        push = ("copy", self.source, f"{registry.host}/a/b:v1")
        files = {}
        for name, login in {"good": b"davit:secret", "wrong": b"davit:wrong"}.items():
            files[name] = self.path(name + ".json")
            with open(files[name], "w", encoding="utf-8") as file:
                json.dump({"auths": {registry.host: {"auth": base64.b64encode(login).decode()}}}, file)
        plain = {"plain_http_hosts": [registry.host]}
        good, wrong = (self.config(name + ".toml", docker_config=files[name], **plain) for name in ("good", "wrong"))
        self.davit(*push, "--config", self.config(**plain), code=1, says="a login is required")
        self.davit(*push, "--config", wrong, code=1, says="the user name or password is refused")
        self.davit(*push, "--config", good)
        self.davit(*push, "--config", wrong, "--auth-file", files["good"])
        self.davit(*push, "--config", wrong, "--auth-file", os.path.relpath(files["good"]))
        self.davit(*push, "--config", good, "--auth-file", files["wrong"], code=1, says="the user name or password is refused")
        # A helper is asked where the files have nothing.
        helper = self.path("docker-credential-test")
        with open(helper, "w", encoding="utf-8") as file:
            file.write('#!/bin/sh\ncat >/dev/null\necho \'{"Username": "davit", "Secret": "secret"}\'\n')
        os.chmod(helper, stat.S_IRWXU)
        self.davit(*push, "--config", self.config(credential_helpers=["test"], **plain), PATH=f"{self.dir}:{os.environ['PATH']}")


class BrokenTest(ConfigCase):
    def test_a_broken_configuration_is_refused_by_every_command(self):
        self.davit("convert", self.source, f"oci:{self.path('image')}:v1", *LINUX)
        broken = self.config("broken.toml", host_dir="/x")
        for words in [*self.commands(self.source, f"oci:{self.path('image')}:v1"), ("ps",)]:
            with self.subTest(words[0]):
                if words[0] != "ps":
                    self.davit(*words)
                self.davit(*words, code=2, says='did you mean "registry.hosts_dir"?', DAVIT_CONFIG=broken)
                self.davit(*words, "--config", broken, code=2, says="host_dir")
                self.davit(*words, "--config", self.path("nowhere.toml"), code=2, says="nowhere.toml: No such file")
                self.davit(*words, "--config", self.path("layout"), code=2, says="neither .toml nor .json")
                self.davit(*words, code=2, says="DAVIT_REGISTRY_RETRIES", DAVIT_REGISTRY_RETRIES="many")

    def test_a_local_bootstrap_does_not_hide_it(self):
        self.davit("check", "--bootstrap", self.path("any"), "--config", self.path("nowhere.toml"), code=2, says="nowhere.toml")

    def test_a_misspelt_variable_is_a_warning(self):
        done = self.davit("convert", self.source, f"oci:{self.path('image')}:v1", *LINUX, DAVIT_REGISTRY_HOST_DIR="/x")
        self.assertIn("DAVIT_REGISTRY_HOSTS_DIR", done.stderr)

    def test_stat_of_a_mount_asks_the_daemon_of_the_file(self):
        socket = self.path("no.sock")
        self.davit("stat", self.dir, "--config", self.config(section="api", socket=socket), code=1, says=socket)


if __name__ == "__main__":
    unittest.main()
