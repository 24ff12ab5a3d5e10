"""Certificates, a TLS registry that writes down its connections, and a proxy, for tests of the network."""
import os
import re
import socket
import subprocess

from daemon_fixture import Registry, wait_for


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Certificates:
    """A private CA, a certificate of 127.0.0.1 and one of a client; made with openssl."""

    def __init__(self, root):
        self.ca = os.path.join(root, "ca.pem")
        self.server, self.server_key = os.path.join(root, "server.pem"), os.path.join(root, "server.key")
        self.client, self.client_key = os.path.join(root, "client.pem"), os.path.join(root, "client.key")
        script = """set -e
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $key -keyout ca.key -out ca.pem -subj /CN=test-ca -days 2
issue() {
  openssl req $key -keyout $1.key -out $1.csr -subj /CN=$1
  printf 'subjectAltName=%s\\nextendedKeyUsage=%s' $2 $3 >$1.ext
  openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $1.pem -days 2 -extfile $1.ext
}
issue server IP:127.0.0.1 serverAuth
issue client DNS:client.example clientAuth
"""
        subprocess.run(["bash", "-c", script], cwd=root, check=True, capture_output=True)


class TlsRegistry(Registry):
    """Debian's docker-registry with TLS; its log names protocol and peer of each request."""

    def __init__(self, root, certificates, need_client=False):
        super().__init__(root)
        self.certificates = certificates
        self.need_client = need_client

    def start(self):
        config = os.path.join(self.root, "registry.yml")
        tls = f"certificate: {self.certificates.server}, key: {self.certificates.server_key}"
        if self.need_client:
            tls += f", clientcas: [{self.certificates.ca}]"
        with open(config, "w", encoding="utf-8") as handle:
            handle.write(f"version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n"
                         f"storage: {{filesystem: {{rootdirectory: {self.root}/registry}}}}\n"
                         f"http: {{addr: {self.host}, tls: {{{tls}}}}}\n")
        with open(os.path.join(self.root, "registry.log"), "ab") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        wait_for(listens, 20, "docker-registry")
        return self

    def log_text(self):
        with open(os.path.join(self.root, "registry.log"), encoding="utf-8", errors="replace") as log:
            return log.read()

    def protocols(self):
        """HTTP versions of the requests so far, by the access log."""
        return re.findall(r'"(?:GET|HEAD|PUT|POST|PATCH|DELETE) \S+ (HTTP/[0-9.]+)"', self.log_text())

    def peers(self):
        """Peer address and port of each request so far."""
        return re.findall(r'http\.request\.remoteaddr="?([0-9.:]+)', self.log_text())


class Proxy:
    """tinyproxy on loopback."""

    def __init__(self, root, login=None):
        self.port = free_port()
        self.log = os.path.join(root, "proxy.log")
        self.process = None
        self.url = f"http://{login[0] + ':' + login[1] + '@' if login else ''}127.0.0.1:{self.port}"
        self.config = os.path.join(root, "proxy.conf")
        with open(self.config, "w", encoding="utf-8") as config:
            config.write(f"Port {self.port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\nLogFile \"{self.log}\"\nLogLevel Info\n")
            if login:
                config.write(f"BasicAuth {login[0]} {login[1]}\n")

    def start(self):
        self.process = subprocess.Popen(["tinyproxy", "-d", "-c", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        wait_for(listens, 20, "tinyproxy")
        return self

    def requests(self):
        """First lines of the requests so far, for example "CONNECT 127.0.0.1:5000 HTTP/1.1"."""
        if not os.path.exists(self.log):
            return []
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return re.findall(r"Request \(file descriptor \d+\): (.+)", log.read())

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
