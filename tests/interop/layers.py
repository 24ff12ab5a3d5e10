"""An OCI image of several layers that hold what breaks image tools, and what it looks like as one tree."""
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import stat
import tarfile

from trees import BORDERS, CHUNK, NAMES, RAW_NAME, half_random

TIME = "1600000000.123456789"
EMPTY_TAR = bytes(1024)
PREFETCH = ["/sizes/65537", "/names/!bang", "/opt"]  # the last one is a directory


class Layer:
    """Collects the entries of one layer's tar. With `parents`, a time, every directory has an entry: a layer's bootstrap
    of its own cannot leave one out, and what it makes up would replace that of a lower layer in a merge."""

    def __init__(self, trailer=True, parents=None):
        self.out, self.trailer, self.parents, self.names = io.BytesIO(), trailer, parents, set()
        self.tar = tarfile.open(fileobj=self.out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")

    def add(self, name, data=None, *, kind=tarfile.REGTYPE, link="", mode=0o644, owner=(0, 0), device=(0, 0), time=TIME, xattrs=None):
        self.names.add(name)
        parent = os.path.dirname(name)
        if self.parents and parent and parent not in self.names:
            self.folder(parent, time=self.parents)
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = kind, link, mode
        info.uid, info.gid = owner
        info.devmajor, info.devminor = device
        info.mtime = int(time.split(".")[0])
        info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
        if "." in time:
            info.pax_headers["mtime"] = time
        info.size = len(data or b"")
        self.tar.addfile(info, io.BytesIO(data or b""))
        return self

    def folder(self, name, mode=0o755, **options):
        return self.add(name, kind=tarfile.DIRTYPE, mode=mode, **options)

    def finish(self):
        end = self.tar.offset
        self.tar.close()
        return self.out.getvalue() if self.trailer else self.out.getvalue()[:end]


def base_layer(rnd):
    layer = Layer()
    layer.folder("etc").add("etc/passwd", b"root:x:0\n").add("etc/shadow", b"secret", mode=0o600)
    layer.folder("opt").add("opt/old", b"old").folder("opt/gone").add("opt/gone/a", b"a").add("opt/gone/b", b"b")
    layer.folder("opaque").add("opaque/lower", b"lower").folder("opaque/deep").add("opaque/deep/file", b"deep")
    layer.folder("names")
    for name in [*NAMES, RAW_NAME]:
        layer.add("names/" + name, b"content of " + os.fsencode(name))
    layer.folder("names/!dir").folder("names/!dir/-deeper", 0o700)
    layer.add("names/link", kind=tarfile.SYMTYPE, link="../etc/passwd", mode=0o777)
    layer.folder("sizes")
    for size in BORDERS:
        layer.add(f"sizes/{size}", half_random(rnd, size))
    layer.add("sizes/zeros", bytes(2 * CHUNK + 5))
    layer.folder("many")
    for i in range(300):
        layer.add(f"many/file-{i:04}", f"small file {i}\n".encode() * (i % 40 + 1))
    layer.add("many/hard-1", kind=tarfile.LNKTYPE, link="many/file-0001").add("names/hard-2", kind=tarfile.LNKTYPE, link="many/file-0001")
    layer.folder("becomes-file").add("becomes-file/x", b"x").add("becomes-folder", b"f").add("becomes-link", b"l")
    return layer.finish()


def second_layer(rnd, peer):
    """Replaces, deletes and adds; its archive ends with its last entry."""
    layer = Layer(trailer=False, parents=TIME if peer else None)
    layer.folder("modes").add("modes/setuid", b"x", mode=0o4755, owner=(70_000, 80_000)).add("modes/none", b"y", mode=0)
    if not peer:  # upstream's reader wants a device number in every special file, tarfile writes none here
        layer.add("modes/fifo", kind=tarfile.FIFOTYPE)
    layer.add("modes/char", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666)
    layer.add("modes/block", kind=tarfile.BLKTYPE, device=(8, 1), mode=0o660)
    layer.folder("xattrs", xattrs={"user.dir": "d"}).add("xattrs/file", b"attributes", xattrs={"user.short": "value", "trusted.note": "t"})
    layer.add("etc/passwd", b"root:x:0\nuser:x:1\n", time="1600000001.5")
    layer.add("opt/.wh.gone").add("opt/.wh.never-there").add("names/.wh.!bang")
    layer.folder("opaque", 0o750).add("opaque/.wh..wh..opq").add("opaque/upper", b"upper")
    layer.add("names/#hash", b"another content").add("names/" + "y" * 255, b"255 more")
    layer.add("sizes/65536", half_random(rnd, 65536)).folder("-").add("-/+", b"odd letters").add("!first", b"before the dot")
    layer.add(".wh.becomes-file").add("becomes-file", b"file").folder("becomes-folder").add("becomes-folder/x", b"x")
    layer.add("becomes-link", kind=tarfile.SYMTYPE, link="etc", mode=0o777)
    return layer.finish()


def top_layer(rnd, peer):
    layer = Layer(parents=TIME if peer else None)
    layer.folder("late").add("late/new", half_random(rnd, 3 * CHUNK + 11)).add("names/.wh.+plus").add("names/!bang", b"back again")
    if not peer:  # a name for a file of a layer below, which upstream's builder refuses
        layer.add("late/hard", kind=tarfile.LNKTYPE, link="sizes/4097").add("late/shadow", kind=tarfile.LNKTYPE, link="etc/shadow")
    return layer.finish()


def image_layers(peer=False):
    """Four archives; with `peer`, without what the real builder's tar reader refuses."""
    rnd = random.Random(815)
    return [base_layer(rnd), second_layer(rnd, peer), EMPTY_TAR, top_layer(rnd, peer)]


def dict_layers():
    """An older image with some of the same files, to be a chunk dictionary."""
    rnd = random.Random(815)
    layer = Layer()
    for size in BORDERS:
        data = half_random(rnd, size)
        if size in (65537, CHUNK + 1, 16 * CHUNK):
            layer.add(f"old/{size}", data)
    return [layer.add("old/other", b"in no other image").finish()]


def write_image(path, tag, tars):
    """Adds an ordinary image to the OCI layout `path`."""
    os.makedirs(os.path.join(path, "blobs/sha256"), exist_ok=True)

    def put(data, media_type):
        name = hashlib.sha256(data).hexdigest()
        with open(os.path.join(path, "blobs/sha256", name), "wb") as handle:
            handle.write(data)
        return {"mediaType": "application/vnd.oci.image." + media_type, "digest": "sha256:" + name, "size": len(data)}

    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": put(json.dumps(config).encode(), "config.v1+json"),
                "layers": [put(gzip.compress(tar, 1, mtime=0), "layer.v1.tar+gzip") for tar in tars]}
    descriptor = put(json.dumps(manifest).encode(), "manifest.v1+json")
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
    with open(os.path.join(path, "oci-layout"), "w", encoding="utf-8") as handle:
        handle.write('{"imageLayoutVersion":"1.0.0"}')
    index = os.path.join(path, "index.json")
    manifests = []
    if os.path.exists(index):
        with open(index, encoding="utf-8") as handle:
            manifests = json.load(handle)["manifests"]
    with open(index, "w", encoding="utf-8") as handle:
        json.dump({"schemaVersion": 2, "manifests": [*manifests, descriptor]}, handle)


def image_file(layout, tag, kind):
    """What a manifest of the layout `layout` lists: kind "manifest", or the bytes of a layer whose annotation ends so."""
    with open(os.path.join(layout, "index.json"), encoding="utf-8") as handle:
        index = json.load(handle)
    (found,) = [m for m in index["manifests"] if m["annotations"]["org.opencontainers.image.ref.name"] == tag]

    def read(descriptor):
        with open(os.path.join(layout, "blobs/sha256", descriptor["digest"][7:]), "rb") as handle:
            return handle.read()

    manifest = json.loads(read(found))
    if "manifests" in manifest:
        manifest = json.loads(read(manifest["manifests"][0]))
    if kind == "manifest":
        return manifest
    (layer,) = [one for one in manifest["layers"] if any(key.endswith(kind) for key in one.get("annotations", {}))]
    return read(layer)


def bootstrap_of(layout, tag):
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(image_file(layout, tag, "nydus-bootstrap")))) as tar:
        return tar.extractfile("image/image.boot").read()


def flatten(root, tars):
    """The tree of these layers, made by hand in the empty directory `root`."""
    times = {}
    for tar in tars:
        with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as archive:
            members = archive.getmembers()
            for info in members:
                delete(root, info.name)
            for info in members:
                if not os.path.basename(info.name).startswith(".wh."):
                    extract(archive, info, root, times)
    for path, when in times.items():
        if os.path.lexists(path):
            os.utime(path, ns=when, follow_symlinks=False)


def delete(root, name):
    folder, marker = os.path.split(os.path.join(root, name))
    if marker == ".wh..wh..opq":
        victims = [os.path.join(folder, one) for one in os.listdir(folder)]
    elif marker.startswith(".wh."):
        victims = [os.path.join(folder, marker[4:])]
    else:
        return
    for victim in victims:
        remove(victim)


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def extract(archive, info, root, times):
    path = os.path.join(root, info.name)
    if not (info.isdir() and os.path.isdir(path)):
        remove(path)
    if info.islnk():
        os.link(os.path.join(root, info.linkname), path)
        return
    if info.isreg():
        with open(path, "wb") as handle:
            shutil.copyfileobj(archive.extractfile(info), handle)
    elif info.isdir():
        os.makedirs(path, exist_ok=True)
    elif info.issym():
        os.symlink(info.linkname, path)
    else:
        kind = {tarfile.FIFOTYPE: stat.S_IFIFO, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}[info.type]
        os.mknod(path, kind | 0o600, os.makedev(info.devmajor, info.devminor))
    os.chown(path, info.uid, info.gid, follow_symlinks=False)
    if not info.issym():
        os.chmod(path, info.mode)
    for key, value in info.pax_headers.items():
        if key.startswith("SCHILY.xattr."):
            os.setxattr(path, key.removeprefix("SCHILY.xattr."), value.encode())
    seconds, _, fraction = info.pax_headers.get("mtime", str(int(info.mtime))).partition(".")
    when = int(seconds) * 10**9 + int(fraction.ljust(9, "0") or 0)
    times[path] = (0, when)
