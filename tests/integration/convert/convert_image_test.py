#!/usr/bin/env python3
"""`davit convert` on images that hold what breaks converters, against a real registry and layouts.

The expected tree comes from an independent flattening of the layers, in Python.
"""
import gzip
import io
import json
import os
import shutil
import tarfile
import tempfile
import unittest

from images import DOCKER, NYDUS_BLOB, OCI, Layout, content, davit, directory, docker_registry, entry, fetch_manifest, make_tar, read_layout, sha

BASE = [
    directory("etc"), entry("etc/passwd", b"root:x:0\n"), entry("etc/shadow", b"secret", mode=0o600),
    directory("opt"), entry("opt/old", b"old"), directory("opt/gone"), entry("opt/gone/a", b"a"), entry("opt/gone/b", b"b"),
    directory("data"), entry("data/big", bytes(range(256)) * 9000), entry("data/empty", b""),
    entry("data/link", type=tarfile.SYMTYPE, link="../etc/passwd"), entry("data/hard", type=tarfile.LNKTYPE, link="data/big"),
    directory("names"), entry("names/-dash", b"1"), entry("names/+plus", b"2"), entry("names/ space", b"3"), entry("names/!x", b"4"),
    entry("names/" + "n" * 255, b"5"), entry("names/raw-\udcff\udcfe", b"6"),
    entry("opaque/lower", b"lower"),
    directory("swap", mode=0o751, uid=7), directory("swap/dir-now-file"), entry("swap/dir-now-file/inside", b"inside"), directory("swap/dir-now-file/deep"),
    entry("swap/dir-now-file/deep/er", b"deeper"), directory("swap/dir-now-link"), entry("swap/dir-now-link/inside", b"inside"),
    entry("swap/file-now-dir", b"was a file"), entry("swap/file-now-implicit-dir", b"was a file"), entry("swap/file-now-device", b"was a file"),
    entry("swap/link-now-dir", type=tarfile.SYMTYPE, link="dir-now-file"), entry("swap/other-name", type=tarfile.LNKTYPE, link="swap/file-now-dir"),
]
TOP = [
    entry("opt/.wh.gone", b""), entry("etc/passwd", b"root:x:0\nuser:x:1\n"), entry("opt/.wh.nothing-there", b""),
    entry("opaque/.wh..wh..opq", b""), entry("opaque/upper", b"upper"),
    entry("etc/linked", type=tarfile.LNKTYPE, link="etc/shadow"),
    entry("ids", b"x", uid=3_000_000, gid=2_000_000), entry("old-time", b"x", mtime=-5.25), entry("just-before", b"x", mtime=-0.25),
    entry("exact-time", b"x", mtime=1234567890.123456),
    entry("dev-null", type=tarfile.CHRTYPE, mode=0o666, dev=(1, 3)), entry("pipe", type=tarfile.FIFOTYPE),
    entry("caps", b"x", pax={"SCHILY.xattr.user.k": "v"}),
    entry("swap/dir-now-file", b"file", mode=0o640), entry("swap/dir-now-link", type=tarfile.SYMTYPE, link="file-now-dir"),
    directory("swap/file-now-dir", mode=0o711), entry("swap/file-now-dir/below", b"below"), entry("swap/file-now-implicit-dir/below", b"below"),
    entry("swap/file-now-device", type=tarfile.CHRTYPE, dev=(1, 5)), directory("swap/link-now-dir"), entry("swap/link-now-dir/inside", b"new"),
]


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

    def test_what_changes_its_type_between_layers(self):
        self.convert([make_tar(BASE), make_tar(TOP)])
        davit("check", f"oci:{self.target}:x", "--source", f"oci:{self.source.path}:x")
        got = {name: value for name, value in self.unpack().items() if name.startswith("swap")}
        self.assertEqual({name: (value[0], value[1], value[5]) for name, value in got.items()}, {
            "swap": (tarfile.DIRTYPE, 0o751, (0, 0)),
            # A directory goes with all it had, to whatever takes its name.
            "swap/dir-now-file": ("file", 0o640, b"file"),
            "swap/dir-now-link": (tarfile.SYMTYPE, 0o644, "file-now-dir"),
            "swap/file-now-dir": (tarfile.DIRTYPE, 0o711, (0, 0)),
            "swap/file-now-dir/below": ("file", 0o644, b"below"),
            "swap/file-now-implicit-dir": (tarfile.DIRTYPE, 0o755, (0, 0)),
            "swap/file-now-implicit-dir/below": ("file", 0o644, b"below"),
            "swap/file-now-device": (tarfile.CHRTYPE, 0o644, (1, 5)),
            # A directory that is named takes the place of the symlink and is not made behind it.
            "swap/link-now-dir": (tarfile.DIRTYPE, 0o755, (0, 0)),
            "swap/link-now-dir/inside": ("file", 0o644, b"new"),
            # The other name of a file that was replaced keeps the content.
            "swap/other-name": ("file", 0o644, b"was a file"),
        })

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

    def test_a_platform_that_was_asked_for_must_be_there(self):
        """Also where there is no index to choose from."""
        self.source.tag(self.source.image([make_tar(BASE)], arch="arm64"), "arm")
        self.source.tag(self.source.image([make_tar(BASE)], arch="arm", variant="v6"), "old-arm")
        self.source.tag(self.source.artifact([make_tar(BASE)]), "artifact")

        def convert(tag, *platforms):
            flags = [flag for platform in platforms for flag in ("--platform", platform)]
            return davit("convert", f"oci:{self.source.path}:{tag}", f"oci:{self.target}:{tag}", *flags, ok=False)
        cases = [
            ("arm", ["linux/amd64"], ["linux/amd64", "linux/arm64"]),
            ("arm", ["windows/arm64"], ["windows/arm64", "linux/arm64"]),
            ("arm", ["linux/arm64", "linux/riscv64"], ["linux/riscv64", "linux/arm64"]),
            ("old-arm", ["linux/arm/v7"], ["linux/arm/v7", "linux/arm/v6"]),
            ("artifact", ["linux/amd64"], ["linux/amd64", "names no platform"]),
        ]
        for tag, platforms, texts in cases:
            with self.subTest(tag=tag, platforms=platforms):
                refused = convert(tag, *platforms)
                self.assertEqual(refused.returncode, 1, refused.stderr)
                for text in texts:
                    self.assertIn(text, refused.stderr.decode())
                self.assertFalse(os.path.exists(os.path.join(self.target, "index.json")))
        # Without a wish the image is taken, whatever this machine is.
        for tag, platforms in [("arm", []), ("arm", ["linux/arm64"]), ("arm", ["linux/arm64/v8"]), ("old-arm", []),
                               ("old-arm", ["linux/arm"]), ("old-arm", ["linux/arm/v6"]), ("artifact", [])]:
            with self.subTest(tag=tag, platforms=platforms):
                done = convert(tag, *platforms)
                self.assertEqual(done.returncode, 0, done.stderr)

    def assert_family(self, manifest, docker):
        """No document mixes Docker's and OCI's media types; the data blobs have the one type that RAFS gives them."""
        *blobs, boot = manifest["layers"]
        self.assertEqual({blob["mediaType"] for blob in blobs}, {NYDUS_BLOB})
        got = [manifest["mediaType"], manifest["config"]["mediaType"], boot["mediaType"]]
        want = ([DOCKER + "distribution.manifest.v2+json", DOCKER + "container.image.v1+json", DOCKER + "image.rootfs.diff.tar.gzip"]
                if docker else [OCI + "image.manifest.v1+json", OCI + "image.config.v1+json", OCI + "image.layer.v1.tar+gzip"])
        self.assertEqual(got, want)

    def test_docker_and_oci_media_types_are_not_mixed(self):
        """Both ways, into a layout and through a registry that checks what it is given."""
        self.source.tag(self.source.image([make_tar(BASE), make_tar(TOP)]), "oci")
        self.source.tag(self.source.docker_image([make_tar(BASE), make_tar(TOP)]), "docker")
        with docker_registry(self.dir) as host:
            for source in ("oci", "docker"):
                for docker in (False, True):
                    with self.subTest(source=source, docker=docker):
                        flags = ["--docker"] if docker else []
                        tag = f"{source}-{docker}".lower()
                        local = json.loads(davit("convert", f"oci:{self.source.path}:{source}", f"oci:{self.target}:{tag}", "--output", "json", *flags).stdout)
                        self.assert_family(json.loads(read_layout(self.target, local["digest"])), docker)
                        image = f"{host}/app:{tag}"
                        pushed = json.loads(davit("convert", f"oci:{self.source.path}:{source}", image, "--plain-http", "--output", "json", *flags).stdout)
                        self.assertEqual(pushed["digest"], local["digest"])
                        kind, body = fetch_manifest(host, "app", tag)
                        self.assertEqual(kind, pushed["media_type"])
                        self.assert_family(json.loads(body), docker)
                        davit("check", image, "--plain-http", "--source", f"oci:{self.source.path}:{source}")
            # Out of the registry, as a source.
            davit("copy", f"oci:{self.source.path}:docker", f"{host}/plain:docker", "--plain-http")
            davit("convert", f"{host}/plain:docker", f"{host}/plain:rafs", "--plain-http", "--docker")
            self.assert_family(json.loads(fetch_manifest(host, "plain", "rafs")[1]), True)
            davit("check", f"{host}/plain:rafs", "--plain-http", "--source", f"{host}/plain:docker")

    def test_a_docker_manifest_list(self):
        entries = [dict(self.source.docker_image([make_tar([entry(arch, b"1")])], arch=arch), platform={"os": "linux", "architecture": arch})
                   for arch in ("amd64", "arm64")]
        kind = DOCKER + "distribution.manifest.list.v2+json"
        self.source.tag(self.source.put(json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode(), kind), "list")
        with docker_registry(self.dir) as host:
            davit("convert", f"oci:{self.source.path}:list", f"{host}/app:list", "--plain-http", "--all-platforms", "--docker", "--keep-source")
            got_kind, body = fetch_manifest(host, "app", "list")
            self.assertEqual(got_kind, kind)
            index = json.loads(body)
            self.assertEqual(index["mediaType"], kind)
            self.assertEqual({m["mediaType"] for m in index["manifests"]}, {DOCKER + "distribution.manifest.v2+json"})
            self.assertEqual(len(index["manifests"]), 4)
            for child in index["manifests"]:
                if "os.features" in child["platform"]:
                    self.assert_family(json.loads(fetch_manifest(host, "app", child["digest"])[1]), True)
            for arch in ("amd64", "arm64"):
                davit("check", f"{host}/app:list", "--plain-http", "--platform", f"linux/{arch}", "--source", f"oci:{self.source.path}:list")

    def test_what_docker_cannot_say_is_refused(self):
        self.source.tag(self.source.image([make_tar(BASE)]), "x")
        self.source.tag(self.source.artifact([make_tar(BASE)]), "artifact")
        for tag, flags, code, texts in [
                ("x", ["--with-referrer"], 2, ["subject", "--docker", "--with-referrer"]),
                ("x", ["--keep-source"], 1, ["OCI manifest", "--keep-source"]),
                ("artifact", [], 1, ["no container image", "vnd.oci.empty", "leave out --docker"])]:
            with self.subTest(tag=tag, flags=flags):
                refused = davit("convert", f"oci:{self.source.path}:{tag}", f"oci:{self.target}:{tag}", "--docker", *flags, ok=False)
                self.assertEqual(refused.returncode, code, refused.stderr)
                for text in texts:
                    self.assertIn(text, refused.stderr.decode())
                self.assertFalse(os.path.exists(self.target))

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
