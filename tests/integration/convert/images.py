"""Images and registries for the tests of the command line: tars and OCI layouts made without davit."""
import contextlib
import gzip
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import time
import urllib.request

DOCKER, OCI = "application/vnd.docker.", "application/vnd.oci."
NYDUS_BLOB = "application/vnd.oci.image.layer.nydus.blob.v1"
DAVIT = os.path.join(os.environ["DAVIT_BIN_DIR"], "davit")


def davit(*args, ok=True):
    result = subprocess.run([DAVIT, *args], capture_output=True)
    if ok and result.returncode != 0:
        raise AssertionError(f"davit {' '.join(args)}: exit {result.returncode}\n{result.stderr.decode(errors='replace')}")
    return result


def entry(name, data=None, *, type=tarfile.REGTYPE, link="", mode=0o644, uid=0, gid=0, mtime=1_600_000_000, pax=None, dev=(0, 0)):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid, info.mtime = type, link, mode, uid, gid, mtime
    info.devmajor, info.devminor = dev
    info.pax_headers = pax or {}
    if data is not None:
        info.size = len(data)
    return info, data


def directory(name, **options):
    return entry(name, type=tarfile.DIRTYPE, mode=options.pop("mode", 0o755), **options)


def make_tar(entries, format=tarfile.PAX_FORMAT, trailer=True):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data) if data is not None else None)
        end = out.tell()
    return out.getvalue() if trailer else out.getvalue()[:end]


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """Writes OCI layouts by hand, without davit."""

    def __init__(self, path):
        self.path = path
        os.makedirs(os.path.join(path, "blobs/sha256"))
        with open(os.path.join(path, "oci-layout"), "w") as handle:
            handle.write('{"imageLayoutVersion":"1.0.0"}')
        self.index = []

    def put(self, data, media_type):
        digest = sha(data)
        with open(os.path.join(self.path, "blobs/sha256", digest[7:]), "wb") as handle:
            handle.write(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def docker_image(self, tars, arch="amd64"):
        """The same content with Docker's media types."""
        manifest = json.loads(read_layout(self.path, self.image(tars, arch=arch)["digest"]))
        manifest["mediaType"] = DOCKER + "distribution.manifest.v2+json"
        manifest["config"]["mediaType"] = DOCKER + "container.image.v1+json"
        for layer in manifest["layers"]:
            layer["mediaType"] = DOCKER + "image.rootfs.diff.tar.gzip"
        return self.put(json.dumps(manifest).encode(), manifest["mediaType"])

    def image(self, tars, compress="gzip", arch="amd64", variant=None):
        layers = []
        for tar in tars:
            if compress == "gzip":
                layers.append(self.put(gzip.compress(tar, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"))
            elif compress == "zstd":
                data = subprocess.run(["zstd", "-q", "-c"], input=tar, capture_output=True, check=True).stdout
                layers.append(self.put(data, "application/vnd.oci.image.layer.v1.tar+zstd"))
            else:
                layers.append(self.put(tar, "application/vnd.oci.image.layer.v1.tar"))
        config = {"architecture": arch, "os": "linux", "config": {"Cmd": ["/bin/x"]}, "created": "2020-01-01T00:00:00Z",
                  "rootfs": {"type": "layers", "diff_ids": [sha(tar) for tar in tars]}, "history": [{"created_by": "step"}]}
        if variant:
            config["variant"] = variant
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"), "layers": layers}
        return self.put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")

    def artifact(self, tars):
        """Not an image: the empty config."""
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/vnd.test",
                    "config": self.put(b"{}", "application/vnd.oci.empty.v1+json"),
                    "layers": [self.put(tar, "application/vnd.oci.image.layer.v1.tar") for tar in tars]}
        return self.put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")

    def tag(self, descriptor, tag):
        self.index.append(dict(descriptor, annotations={"org.opencontainers.image.ref.name": tag}))
        with open(os.path.join(self.path, "index.json"), "w") as handle:
            json.dump({"schemaVersion": 2, "manifests": self.index}, handle)


def read_layout(path, digest):
    with open(os.path.join(path, "blobs/sha256", digest[7:]), "rb") as handle:
        return handle.read()


def fetch_manifest(host, repository, reference):
    """Content type and body, as a registry gives them to a client that takes everything."""
    kinds = [OCI + "image.index.v1+json", OCI + "image.manifest.v1+json", DOCKER + "distribution.manifest.list.v2+json", DOCKER + "distribution.manifest.v2+json"]
    request = urllib.request.Request(f"http://{host}/v2/{repository}/manifests/{reference}", headers={"Accept": ", ".join(kinds)})
    with urllib.request.urlopen(request) as reply:
        return reply.headers["Content-Type"], reply.read()


def content(tar_bytes):
    """name -> (type, mode, uid, gid, mtime, data or target) of a tar that davit unpacked."""
    out = {}
    with tarfile.open(fileobj=io.BytesIO(tar_bytes), errorlevel=2, encoding="utf-8", errors="surrogateescape") as tar:
        for info in tar:
            name = info.name.strip("/").removeprefix("./")
            if name in ("", "."):
                continue
            if info.isreg():
                out[name] = ("file", info.mode, info.uid, info.gid, info.mtime, tar.extractfile(info).read(), dict(info.pax_headers))
            elif info.islnk():
                out[name] = out[info.linkname.strip("/").removeprefix("./")]
            else:
                out[name] = (info.type, info.mode, info.uid, info.gid, info.mtime, info.linkname or (info.devmajor, info.devminor), {})
    return out


@contextlib.contextmanager
def docker_registry(directory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = os.path.join(directory, "registry.yml")
    with open(config, "w") as handle:
        handle.write(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/registry}}, delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/").close()
                break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
