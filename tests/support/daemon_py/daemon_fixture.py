"""davitd, a registry and small images for tests of the daemon and the node commands."""
import contextlib
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request

BIN = os.environ["DAVIT_BIN_DIR"]
DAVITD = os.path.join(BIN, "davitd")
DAVIT = os.path.join(BIN, "davit")


def wait_for(condition, seconds=20, what="condition"):
    """The first true value of condition(); fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)


def is_mounted(path):
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        return any(line.split()[4] == path for line in table)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("davitd", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Daemon:
    """One davitd with directories of its own; may be started again on them."""

    def __init__(self, root, **settings):
        self.root = root
        self.socket = os.path.join(root, "davitd.sock")
        self.log = os.path.join(root, "davitd.log")
        self.settings = settings
        self.process = None

    def start(self, *options, env=None, wait=True):
        words = [DAVITD, "--state-dir", os.path.join(self.root, "state"), "--socket", self.socket, "--log-level", "debug"]
        for key, value in self.settings.items():
            words += ["--set", f"{key.replace('__', '.')}={value}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DAVIT_")}
        environment.update(env or {})
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(words + list(options), stdout=log, stderr=log, env=environment)
        if wait:
            self.wait_running()
        return self

    def wait_running(self, seconds=30):
        def running():
            if self.process.poll() is not None:
                raise AssertionError("davitd ended:\n" + self.log_text()[-3000:])
            try:
                return self.call("GET", "/api/v1/daemon")["state"] == "running"
            except OSError:
                return False
        wait_for(running, seconds, "davitd")

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def request(self, method, path, body=None, timeout=60, headers=None):
        """(status, text, headers)"""
        connection = UnixConnection(self.socket, timeout)
        try:
            text = None if body is None else body if isinstance(body, str) else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json", **(headers or {})})
            reply = connection.getresponse()
            return reply.status, reply.read().decode(), dict(reply.getheaders())
        finally:
            connection.close()

    def call(self, method, path, body=None):
        """The reply as JSON; fails unless it is 2xx."""
        status, text, _ = self.request(method, path, body)
        if not 200 <= status < 300:
            raise AssertionError(f"{method} {path}: {status} {text}\n{self.log_text()[-2000:]}")
        return json.loads(text)

    def mount(self, id, source, mountpoint, **more):
        body = {"id": id, "source": source, "mountpoint": mountpoint, **more}
        self.call("POST", "/api/v1/mounts", body)
        info = wait_for(lambda: (lambda i: i["state"] != "mounting" and i)(self.call("GET", f"/api/v1/mounts/{id}")), 60, "mount")
        if info["state"] != "mounted":
            raise AssertionError(f"{info}\n{self.log_text()[-2000:]}")
        return info

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds=30):
        """SIGTERM; the exit code."""
        if self.process is None or self.process.poll() is not None:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("davitd did not end after SIGTERM:\n" + self.log_text()[-3000:]) from None


@contextlib.contextmanager
def workspace():
    """A directory; whatever is still mounted below it at the end is detached."""
    path = tempfile.mkdtemp(prefix="davit-test-")
    try:
        yield path
    finally:
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            points = [line.split()[4] for line in table]
        for point in reversed(points):
            if point.startswith(path + "/"):
                subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(path, ignore_errors=True)


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write_layout(path, files, tag="v1", mode=0o644):
    """An OCI layout with one image of one layer; files: name -> bytes, all of this mode."""
    os.makedirs(os.path.join(path, "blobs/sha256"), exist_ok=True)

    def put(data, media_type):
        with open(os.path.join(path, "blobs/sha256", sha(data)[7:]), "wb") as handle:
            handle.write(data)
        return {"mediaType": media_type, "digest": sha(data), "size": len(data)}

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), 1_600_000_000, mode
            tar.addfile(info, io.BytesIO(data))
    layer = raw.getvalue()
    oci = "application/vnd.oci.image."
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [sha(layer)]}}
    manifest = {"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": put(json.dumps(config).encode(), oci + "config.v1+json"),
                "layers": [put(gzip.compress(layer, 1, mtime=0), oci + "layer.v1.tar+gzip")]}
    descriptor = put(json.dumps(manifest).encode(), oci + "manifest.v1+json")
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
    with open(os.path.join(path, "oci-layout"), "w", encoding="utf-8") as handle:
        handle.write('{"imageLayoutVersion":"1.0.0"}')
    with open(os.path.join(path, "index.json"), "w", encoding="utf-8") as handle:
        json.dump({"schemaVersion": 2, "manifests": [descriptor]}, handle)


def davit(*words, ok=True, env=None):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DAVIT_")}
    environment.update(env or {})
    result = subprocess.run([DAVIT, *words], capture_output=True, text=True, env=environment, check=False)
    if ok and result.returncode != 0:
        raise AssertionError(f"davit {' '.join(words)}: exit {result.returncode}\n{result.stderr}")
    return result


def make_rafs(directory, files, target, *options, env=None):
    """Builds a RAFS image of these files under the reference `target`."""
    source = tempfile.mkdtemp(dir=directory)
    write_layout(source, files)
    davit("convert", f"oci:{source}:v1", target, "--plain-http", "--platform", "linux/amd64", *options, env=env)


class Registry:
    """Debian's docker-registry on loopback; may be stopped and started on the same port."""

    # bcrypt of "secret", cost 5
    PASSWORDS = "davit:$2b$05$davitdavitdavitdavitde6huyg6.11x3ITStG2Hhl/obnCYLafxi\n"

    def __init__(self, root, login=False):
        self.root = root
        self.login = login
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        config = os.path.join(self.root, "registry.yml")
        with open(config, "w", encoding="utf-8") as handle:
            handle.write(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {self.root}/registry}}}}\n"
                         f"http: {{addr: {self.host}}}\n")
            if self.login:
                with open(os.path.join(self.root, "htpasswd"), "w", encoding="utf-8") as passwords:
                    passwords.write(self.PASSWORDS)
                handle.write(f"auth: {{htpasswd: {{realm: test, path: {self.root}/htpasswd}}}}\n")
        with open(os.path.join(self.root, "registry.log"), "ab") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)

        def answers():
            try:
                with urllib.request.urlopen(f"http://{self.host}/v2/", timeout=2):
                    return True
            except urllib.error.HTTPError as error:
                error.close()
                return error.code == 401
            except OSError:
                return False
        wait_for(answers, 20, "docker-registry")
        return self

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
