#!/usr/bin/env python3
"""`davit convert` on images that hold what breaks converters, against a real registry and layouts.

The expected tree comes from an independent flattening of the layers, in Python.
"""
import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
import unittest
import urllib.request

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

    def image(self, tars, compress="gzip", arch="amd64"):
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
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"), "layers": layers}
        return self.put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")

    def tag(self, descriptor, tag):
        self.index.append(dict(descriptor, annotations={"org.opencontainers.image.ref.name": tag}))
        with open(os.path.join(self.path, "index.json"), "w") as handle:
            json.dump({"schemaVersion": 2, "manifests": self.index}, handle)


def read_layout(path, digest):
    with open(os.path.join(path, "blobs/sha256", digest[7:]), "rb") as handle:
        return handle.read()


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


BASE = [
    directory("etc"), entry("etc/passwd", b"root:x:0\n"), entry("etc/shadow", b"secret", mode=0o600),
    directory("opt"), entry("opt/old", b"old"), directory("opt/gone"), entry("opt/gone/a", b"a"), entry("opt/gone/b", b"b"),
    directory("data"), entry("data/big", bytes(range(256)) * 9000), entry("data/empty", b""),
    entry("data/link", type=tarfile.SYMTYPE, link="../etc/passwd"), entry("data/hard", type=tarfile.LNKTYPE, link="data/big"),
    directory("names"), entry("names/-dash", b"1"), entry("names/+plus", b"2"), entry("names/ space", b"3"), entry("names/!x", b"4"),
    entry("names/" + "n" * 255, b"5"), entry("names/raw-\udcff\udcfe", b"6"),
    entry("opaque/lower", b"lower"),
]
TOP = [
    entry("opt/.wh.gone", b""), entry("etc/passwd", b"root:x:0\nuser:x:1\n"), entry("opt/.wh.nothing-there", b""),
    entry("opaque/.wh..wh..opq", b""), entry("opaque/upper", b"upper"),
    entry("etc/linked", type=tarfile.LNKTYPE, link="etc/shadow"),
    entry("ids", b"x", uid=3_000_000, gid=2_000_000), entry("old-time", b"x", mtime=-5.25), entry("just-before", b"x", mtime=-0.25),
    entry("exact-time", b"x", mtime=1234567890.123456),
    entry("dev-null", type=tarfile.CHRTYPE, mode=0o666, dev=(1, 3)), entry("pipe", type=tarfile.FIFOTYPE),
    entry("caps", b"x", pax={"SCHILY.xattr.user.k": "v"}),
    entry("etc/dir-now-file", b"file"),
]


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


class ConvertTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="davit-convert-test-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.source = Layout(os.path.join(self.dir, "source"))
        self.target = os.path.join(self.dir, "target")

    def convert(self, tars, *flags, compress="gzip", tag="x"):
        self.source.tag(self.source.image(tars, compress), tag)
        return json.loads(davit("convert", f"oci:{self.source.path}:{tag}", f"oci:{self.target}:{tag}", "--output", "json", *flags).stdout)

    def unpack(self, tag="x"):
        out = os.path.join(self.dir, "out.tar")
        davit("unpack", f"oci:{self.target}:{tag}", "-o", out)
        with open(out, "rb") as handle:
            return content(handle.read())

    def test_layers_flatten_as_they_should(self):
        self.convert([make_tar(BASE), make_tar(TOP)])
        davit("check", f"oci:{self.target}:x", "--source", f"oci:{self.source.path}:x")
        got = self.unpack()
        self.assertNotIn("opt/gone", got)
        self.assertNotIn("opt/gone/a", got)
        self.assertEqual(got["opt/old"][5], b"old")
        self.assertEqual(got["etc/passwd"][5], b"root:x:0\nuser:x:1\n")
        self.assertEqual(got["etc/linked"][5], b"secret")
        self.assertEqual(got["etc/linked"][1], 0o600)
        self.assertNotIn("opaque/lower", got)
        self.assertEqual(got["opaque/upper"][5], b"upper")
        self.assertEqual(got["data/big"][5], bytes(range(256)) * 9000)
        self.assertEqual(got["data/hard"], got["data/big"])
        self.assertEqual(got["data/link"][5], "../etc/passwd")
        for name in ["-dash", "+plus", " space", "!x", "n" * 255, "raw-\udcff\udcfe"]:
            self.assertIn("names/" + name, got)
        self.assertEqual(got["ids"][2:4], (3_000_000, 2_000_000))
        self.assertAlmostEqual(got["old-time"][4], -5.25)
        self.assertAlmostEqual(got["just-before"][4], -0.25)
        self.assertAlmostEqual(got["exact-time"][4], 1234567890.123456, places=5)
        self.assertEqual(got["dev-null"][0], tarfile.CHRTYPE)
        self.assertEqual(got["dev-null"][5], (1, 3))
        self.assertEqual(got["pipe"][0], tarfile.FIFOTYPE)
        self.assertEqual(got["caps"][6].get("SCHILY.xattr.user.k"), "v")
        self.assertFalse([name for name in got if ".wh." in name])

    def test_source_compressions_and_odd_tars_give_the_same_image(self):
        plain = [make_tar(BASE), make_tar(TOP)]
        digests = set()
        for i, compress in enumerate(["gzip", "zstd", "plain"]):
            digests.add(self.convert(plain, compress=compress, tag=f"c{i}")["digest"])
        digests.add(self.convert([make_tar(BASE, trailer=False), make_tar(TOP, trailer=False)], tag="no-trailer")["digest"])
        # The config differs in nothing that the conversion keeps.
        self.assertEqual(len(digests), 1, digests)

    def test_empty_layers_and_empty_images(self):
        self.convert([make_tar(BASE), b"", make_tar([]), make_tar([directory("only-dir")])], tag="x")
        self.assertIn("only-dir", self.unpack())
        self.convert([make_tar([])], tag="empty")
        self.assertEqual(self.unpack("empty"), {})

    def test_same_bytes_whatever_the_threads(self):
        tars = [make_tar(BASE), make_tar(TOP)]
        one = self.convert(tars, "--threads", "1", tag="one")["digest"]
        four = self.convert(tars, "--threads", "4", tag="four")["digest"]
        self.assertEqual(one, four)

    def test_options(self):
        tars = [make_tar(BASE), make_tar(TOP)]
        for i, flags in enumerate([["--compressor", "none"], ["--compressor", "lz4_block"], ["--level", "19"], ["--digester", "sha256"],
                                   ["--chunk-size", "4KiB"], ["--chunk-size", "16MiB"], ["--batch-size", "64KiB"], ["--dedup", "image"],
                                   ["--prefetch", "/data/big", "--prefetch", "/etc"]]):
            with self.subTest(flags=flags):
                self.convert(tars, *flags, tag=f"o{i}")
                report = json.loads(davit("check", f"oci:{self.target}:o{i}", "--source", f"oci:{self.source.path}:o{i}", "--output", "json").stdout)
                self.assertEqual(report["problems"], [])

    def test_manifest_is_what_nydus_tools_expect(self):
        digest = self.convert([make_tar(BASE), make_tar(TOP)], "--with-referrer")["digest"]
        manifest = json.loads(read_layout(self.target, digest))
        *blobs, boot = manifest["layers"]
        self.assertEqual(len(blobs), 2)
        for blob in blobs:
            self.assertEqual(blob["mediaType"], "application/vnd.oci.image.layer.nydus.blob.v1")
            self.assertEqual(blob["annotations"]["containerd.io/snapshot/nydus-blob"], "true")
        self.assertEqual(boot["annotations"]["containerd.io/snapshot/nydus-bootstrap"], "true")
        self.assertEqual(boot["annotations"]["containerd.io/snapshot/nydus-fs-version"], "6")
        self.assertEqual(manifest["artifactType"], "application/vnd.nydus.image.manifest.v1+json")
        self.assertEqual(manifest["subject"]["digest"], self.source.index[0]["digest"])
        config = json.loads(read_layout(self.target, manifest["config"]["digest"]))
        self.assertEqual(config["config"], {"Cmd": ["/bin/x"]})
        self.assertEqual(len(config["rootfs"]["diff_ids"]), 3)
        tar = gzip.decompress(read_layout(self.target, boot["digest"]))
        self.assertEqual(config["rootfs"]["diff_ids"][-1], sha(tar))
        names = tarfile.open(fileobj=io.BytesIO(tar)).getnames()
        self.assertIn("image/image.boot", names)
        for blob in blobs:
            self.assertIn(f"image/{blob['digest'][7:]}.blob.meta", names)

    def test_platforms_of_an_index(self):
        a = self.source.image([make_tar(BASE)], arch="amd64")
        b = self.source.image([make_tar([entry("arm", b"1")])], arch="arm64")
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                 "manifests": [dict(a, platform={"os": "linux", "architecture": "amd64"}), dict(b, platform={"os": "linux", "architecture": "arm64"}),
                               dict(a, platform={"os": "unknown", "architecture": "unknown"})]}
        self.source.tag(self.source.put(json.dumps(index).encode(), "application/vnd.oci.image.index.v1+json"), "multi")
        report = json.loads(davit("convert", f"oci:{self.source.path}:multi", f"oci:{self.target}:multi", "--all-platforms", "--keep-source", "--output", "json").stdout)
        got = json.loads(read_layout(self.target, report["digest"]))
        self.assertEqual([(m["platform"]["architecture"], m["platform"].get("os.features")) for m in got["manifests"]],
                         [("amd64", None), ("amd64", ["nydus.remoteimage.v1"]), ("arm64", None), ("arm64", ["nydus.remoteimage.v1"])])
        davit("check", f"oci:{self.target}:multi", "--platform", "linux/arm64", "--source", f"oci:{self.source.path}:multi")
        missing = davit("convert", f"oci:{self.source.path}:multi", f"oci:{self.target}:no", "--platform", "linux/riscv64", ok=False)
        self.assertEqual(missing.returncode, 1)
        self.assertIn(b"linux/arm64", missing.stderr)

    def test_registry_push_reuses_blobs_and_chunk_dict(self):
        self.source.tag(self.source.image([make_tar(BASE), make_tar(TOP)]), "x")
        with docker_registry(self.dir) as host:
            first = json.loads(davit("convert", f"oci:{self.source.path}:x", f"{host}/app:1", "--plain-http", "--output", "json").stdout)
            self.assertGreater(first["pushed_bytes"], 0)
            davit("check", f"{host}/app:1", "--plain-http", "--source", f"oci:{self.source.path}:x")
            again = json.loads(davit("convert", f"oci:{self.source.path}:x", f"{host}/app:2", "--plain-http", "--output", "json").stdout)
            self.assertEqual(again["digest"], first["digest"])
            self.assertEqual(again["pushed_bytes"], 0)
            # Another image with mostly the same content, stored against the first as a dictionary.
            self.source.tag(self.source.image([make_tar(BASE + [entry("new", b"new file")])]), "y")
            dedup = json.loads(davit("convert", f"oci:{self.source.path}:y", f"{host}/other:1", "--plain-http", "--chunk-dict", f"{host}/app:1", "--output", "json").stdout)
            self.assertLess(dedup["target_bytes"], first["target_bytes"])
            davit("check", f"{host}/other:1", "--plain-http", "--source", f"oci:{self.source.path}:y")

    def test_refusals_name_thing_and_reason(self):
        cases = [
            (["convert", "Not A Reference", "oci:/tmp/x:y"], 2, b"Not A Reference"),
            (["convert", f"oci:{self.dir}/nowhere:x", "oci:/tmp/x:y"], 1, b"nowhere"),
            (["convert", f"oci:{self.source.path}:x", "oci:/tmp/x:y", "--chunk-size", "5000"], 2, b"chunk"),
            (["check", "--bootstrap", "/etc/passwd"], 1, b"/etc/passwd"),
            (["frobnicate"], 2, b""),
        ]
        for args, code, text in cases:
            with self.subTest(args=args):
                result = davit(*args, ok=False)
                self.assertEqual(result.returncode, code, result.stderr)
                self.assertIn(text, result.stderr)
        evil = make_tar([entry("../../etc/evil", b"x")])
        self.source.tag(self.source.image([evil]), "evil")
        result = davit("convert", f"oci:{self.source.path}:evil", f"oci:{self.target}:evil", ok=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"..", result.stderr)
        broken = self.source.image([make_tar(BASE)])
        manifest = json.loads(read_layout(self.source.path, broken["digest"]))
        path = os.path.join(self.source.path, "blobs/sha256", manifest["layers"][0]["digest"][7:])
        with open(path, "r+b") as handle:
            handle.seek(manifest["layers"][0]["size"] // 2)
            byte = handle.read(1)[0]
            handle.seek(-1, os.SEEK_CUR)
            handle.write(bytes([byte ^ 1]))
        self.source.tag(broken, "broken")
        result = davit("convert", f"oci:{self.source.path}:broken", f"oci:{self.target}:broken", ok=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"layer 1 of 1", result.stderr)


if __name__ == "__main__":
    unittest.main()
