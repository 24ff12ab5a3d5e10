"""The cases of the benchmark. Each returns rows: a figure, its peer, the ratio that must hold."""
import gzip
import json
import os
import re
import shutil
import statistics
import subprocess
import tarfile
import time

import lib

LINK = 100_000_000
LATENCY = 5


class Row:
    def __init__(self, what, ours, unit, peer=None, peer_name="", limit=None, higher=False):
        self.what, self.ours, self.unit, self.peer, self.peer_name, self.limit, self.higher = what, ours, unit, peer, peer_name, limit, higher
        self.ratio = ours / peer if peer else None
        self.holds = None if limit is None or self.ratio is None else (self.ratio >= limit if higher else self.ratio <= limit)

    def text(self):
        out = f"{self.what}: {self.ours:.3g} {self.unit}"
        if self.peer is not None:
            out += f"; {self.peer_name} {self.peer:.3g}; ratio {self.ratio:.2f}"
        if self.limit is not None and self.ratio is not None:
            out += f" (must be {'>=' if self.higher else '<='} {self.limit}: {'ok' if self.holds else 'MISSED'})"
        return out


def median(values):
    return statistics.median(values)


class Setup:
    """The images of all contestants, built once: davit's and nydus's, both in one layout."""

    def __init__(self, layout, work, runs):
        self.source, self.work, self.runs = layout, work, runs
        self.nydus = lib.nydus_dir()
        self.images = os.path.join(work, "images")
        self.counter = 0
        self.build = {}
        self._manifest()
        self._plain_layers()
        self._build_davit()
        if self.nydus:
            self._build_nydus()

    def fresh(self, name):
        self.counter += 1
        return os.path.join(self.work, f"{name}-{self.counter}")

    def _blob(self, digest):
        return os.path.join(self.source, "blobs/sha256", digest.split(":")[1])

    def _manifest(self):
        index = json.load(open(os.path.join(self.source, "index.json")))
        self.manifest = json.load(open(self._blob(index["manifests"][0]["digest"])))

    def _plain_layers(self):
        """Uncompressed tars, kept with the image: the builders' input."""
        folder = os.path.join(os.path.dirname(self.source), "tars")
        os.makedirs(folder, exist_ok=True)
        self.tars = []
        for layer in self.manifest["layers"]:
            path = os.path.join(folder, layer["digest"].split(":")[1] + ".tar")
            if not os.path.exists(path):
                with gzip.open(self._blob(layer["digest"])) as source, open(path + ".tmp", "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                os.rename(path + ".tmp", path)
            self.tars.append(path)

    def _timed(self, name, command):
        started = time.monotonic()
        result = subprocess.run(["/usr/bin/time", "-f", "%M %U %S", *map(str, command)], capture_output=True, text=True, errors="replace")
        seconds = time.monotonic() - started
        if result.returncode != 0:
            raise RuntimeError(f"{name}: {result.stderr[-2000:]}")
        rss, user, system = result.stderr.strip().splitlines()[-1].split()
        done = self.build.setdefault(name, {"seconds": 0.0, "cpu": 0.0, "rss_kib": 0, "bytes": 0})
        done["seconds"] += seconds
        done["cpu"] += float(user) + float(system)
        done["rss_kib"] = max(done["rss_kib"], int(rss))

    def _build_davit(self):
        davit = os.path.join(lib.BIN, "davit")
        for tar in self.tars:
            with open(tar, "rb") as handle:  # into the page cache
                while handle.read(1 << 24):
                    pass
        out = os.path.join(self.work, "davit-build")
        boots = []
        for i, tar in enumerate(self.tars):
            folder = os.path.join(out, str(i))
            self._timed("davit", [davit, "build", tar, "-o", folder, "--whiteouts", "none", "--compressor", "zstd", "--level", "3"])
            boots.append(os.path.join(folder, "image.boot"))
            self.build["davit"]["bytes"] += sum(os.path.getsize(os.path.join(folder, n)) for n in os.listdir(folder) if n != "image.boot")
        merged = os.path.join(out, "merged.boot")
        self._timed("davit", [davit, "merge", *boots, "-o", merged])
        self.build["davit"]["bytes"] += os.path.getsize(merged)
        shutil.rmtree(out)
        lib.run(davit, "convert", f"oci:{self.source}:src", f"oci:{self.images}:davit", "--quiet")
        index = json.load(open(os.path.join(self.images, "index.json")))
        (entry,) = [m for m in index["manifests"] if m["annotations"]["org.opencontainers.image.ref.name"] == "davit"]
        manifest = json.load(open(os.path.join(self.images, "blobs/sha256", entry["digest"].split(":")[1])))
        for layer in self.manifest["layers"]:  # for pull and unpack
            target = os.path.join(self.images, "blobs/sha256", layer["digest"].split(":")[1])
            if not os.path.exists(target):
                os.link(self._blob(layer["digest"]), target)
        self.davit_bytes = sum(layer["size"] for layer in manifest["layers"])

    def _build_nydus(self):
        image = os.path.join(self.nydus, "nydus-image")
        out = os.path.join(self.work, "nydus-build")
        os.makedirs(out + "/blobs")
        os.makedirs(out + "/boots")
        boots, self.nydus_bytes = [], 0
        for i, tar in enumerate(self.tars):
            before = set(os.listdir(out + "/blobs"))
            self._timed("nydus", [image, "create", "--fs-version", "6", "--type", "tar-rafs", "--blob-dir", out + "/blobs", "--blob-inline-meta",
                                  "--features", "blob-toc", "--whiteout-spec", "none", "--compressor", "zstd", "--chunk-size", "0x100000", tar])
            for name in set(os.listdir(out + "/blobs")) - before:
                path = os.path.join(out, "blobs", name)
                self.nydus_bytes += os.path.getsize(path)
                lib.run(os.path.join(lib.BIN, "davit"), "extract", path, "-o", os.path.join(out, "boots", name))
                boots.append(os.path.join(out, "boots", name))
        merged = os.path.join(out, "merged.boot")
        self._timed("nydus", [image, "merge", "--bootstrap", merged, *boots])
        self.build["nydus"]["bytes"] = self.nydus_bytes + os.path.getsize(merged)
        for name in os.listdir(out + "/blobs"):
            os.rename(os.path.join(out, "blobs", name), os.path.join(self.images, "blobs/sha256", name))
        layer = os.path.join(out, "boot.tar")
        with tarfile.open(layer, "w") as tar:
            tar.add(merged, "image/image.boot")
        self.nydus_bootstrap = lib.put_blob(self.images, gzip.compress(open(layer, "rb").read(), 6))
        shutil.rmtree(out)

    def build_erofs(self):
        """mkfs.erofs lz4 of the whole unpacked tree (unpacking is not counted)."""
        tree, image = self.fresh("tree"), self.fresh("erofs")
        os.makedirs(tree)
        try:
            for tar in self.tars:
                lib.run("tar", "-xf", tar, "-C", tree)
            self._timed("mkfs.erofs", ["mkfs.erofs", "--quiet", "-zlz4", image, tree])
            self.build["mkfs.erofs"]["bytes"] = os.path.getsize(image)
        finally:
            shutil.rmtree(tree, ignore_errors=True)
            if os.path.exists(image):
                os.unlink(image)

    def registry(self, limited=True):
        return lib.Registry(self.images, LATENCY if limited else 0, LINK if limited else 0)

    def tags(self, count):
        """That many images: davit's, with other configurations, so that each has a manifest and a bootstrap layer of its own."""
        names = ["davit"]
        index_path = os.path.join(self.images, "index.json")
        index = json.load(open(index_path))
        known = {m["annotations"]["org.opencontainers.image.ref.name"]: m for m in index["manifests"]}
        manifest = json.load(open(os.path.join(self.images, "blobs/sha256", known["davit"]["digest"].split(":")[1])))
        for i in range(1, count):
            name = f"davit-{i}"
            names.append(name)
            if name in known:
                continue
            manifest["annotations"] = dict(manifest.get("annotations") or {}, number=str(i))
            data = json.dumps(manifest).encode()
            index["manifests"].append({"mediaType": manifest["mediaType"], "digest": lib.put_blob(self.images, data), "size": len(data),
                                       "annotations": {"org.opencontainers.image.ref.name": name}})
        with open(index_path, "w") as handle:
            json.dump(index, handle)
        return names

    def contestants(self, registry, both_modes=False):
        """Fresh ones, caches empty."""
        out = [lambda: lib.Davit(self.fresh("davit"), f"{registry.host}/bench:davit")]
        if self.nydus:
            out.append(lambda: lib.Nydus(self.fresh("nydus"), registry, self.nydus_bootstrap, True))
            if both_modes:
                out.append(lambda: lib.Nydus(self.fresh("nydus"), registry, self.nydus_bootstrap, False))
        return out

    def measure(self, function, limited=True, both_modes=True, rounds=1):
        """name -> list of results of function(contestant, mountpoint, window), interleaved; `rounds` for each run."""
        out = {}
        with self.registry(limited) as registry:
            for i in range(self.runs * rounds):
                for make in in_turn(self.contestants(registry, both_modes), i):
                    lib.drop_caches()
                    with make() as contestant:
                        mountpoint = self.fresh("mnt")
                        window = lib.Window(registry)
                        out.setdefault(contestant.name, []).append(function(contestant, mountpoint, window))
        return out


def in_turn(makers, i):
    """Who is first changes from round to round: each finds the machine as the one before has left it."""
    return makers if i % 2 == 0 else makers[::-1]


def best_peer(results, key):
    peers = {name: median([r[key] for r in values]) for name, values in results.items() if name != "davit"}
    if not peers:
        return None, ""
    name = min(peers, key=peers.get)
    return peers[name], name


def build(setup):
    size = sum(os.path.getsize(t) for t in setup.tars)
    ours, theirs = setup.build["davit"], setup.build.get("nydus")
    setup.build_erofs()
    erofs = setup.build["mkfs.erofs"]
    rows = [Row("build, MB/s of tar", size / 1e6 / ours["seconds"], "MB/s", theirs and size / 1e6 / theirs["seconds"], "nydus-image", 2, True),
            Row("image size", ours["bytes"] / 1e6, "MB", theirs and theirs["bytes"] / 1e6, "nydus-image", 1.005),
            Row("peak RSS", ours["rss_kib"] / 1024, "MiB", 256, "limit", 1.0),
            Row("build, MB/s of tar", size / 1e6 / ours["seconds"], "MB/s", size / 1e6 / erofs["seconds"], "mkfs.erofs lz4"),
            Row("image size", ours["bytes"] / 1e6, "MB", erofs["bytes"] / 1e6, "mkfs.erofs lz4")]
    return rows


def first_byte(setup):
    def once(contestant, mountpoint, window):
        start = time.monotonic()
        contestant.mount(mountpoint)
        with open(os.path.join(mountpoint, "usr/bin/env"), "rb") as handle:
            handle.read(1)
        return {"seconds": time.monotonic() - start, **window.done()}
    results = setup.measure(once, rounds=3)  # tenths of a second, and they vary by a quarter
    peer, name = best_peer(results, "seconds")
    ours = {k: median([r[k] for r in results["davit"]]) for k in ("seconds", "requests", "bytes")}
    return [Row("mount and first byte, cold", ours["seconds"], "s", peer, name, 0.5),
            Row("requests by then", ours["requests"], ""), Row("bytes by then", ours["bytes"] / 1e6, "MB")]


def read_tree(root):
    """Every file in the order of names, one after the other."""
    subprocess.run("find . -xdev -type f -print0 | LC_ALL=C sort -z | xargs -0 cat >/dev/null", shell=True, cwd=root, check=True)


def pull_and_unpack(setup, registry):
    """What a node does without lazy loading: all layers by GET, one after the other through tar; then the same reader."""
    root = setup.fresh("pulled")
    os.makedirs(root)
    try:
        start = time.monotonic()
        for layer in setup.manifest["layers"]:
            url = f"http://{registry.host}/v2/bench/blobs/{layer['digest']}"
            subprocess.run(f"curl -sS -f {url} | tar -xzf - -C {root}", shell=True, check=True)
        read_tree(root)
        return time.monotonic() - start
    finally:
        shutil.rmtree(root, ignore_errors=True)


def full(setup):
    def once(contestant, mountpoint, window):
        start = time.monotonic()
        contestant.mount(mountpoint)
        read_tree(mountpoint)
        seconds = time.monotonic() - start
        sent = window.done()
        time.sleep(1)
        return {"seconds": seconds, "rss": lib.rss_kib(contestant.pid), **sent}
    results = setup.measure(once)
    peer, name = best_peer(results, "seconds")
    ours = {k: median([r[k] for r in results["davit"]]) for k in ("seconds", "requests", "bytes", "rss")}
    floor = setup.davit_bytes / LINK
    with setup.registry() as registry:
        lib.drop_caches()
        pulled = pull_and_unpack(setup, registry)
    return [Row("read everything, cold, one reader", ours["seconds"], "s", pulled, "pull and unpack"),
            Row("read everything, cold, one reader", ours["seconds"], "s", floor, "link floor", 1.5),
            Row("read everything, cold, one reader", ours["seconds"], "s", peer, name, 0.65),
            Row("bytes on the wire", ours["bytes"] / 1e6, "MB", setup.davit_bytes / 1e6, "compressed bytes", 1.01),
            Row("requests", ours["requests"], "", 300, "limit", 1.0),
            Row("RSS of davitd after it", ours["rss"] / 1024, "MiB", 45, "limit", 1.0)]


PYTHON = "import ssl, sqlite3, asyncio"
NUMPY = "import numpy; numpy.ones(3).sum()"


def start(setup):
    rows = []
    for what, code in (("start python with ssl, sqlite3, asyncio", PYTHON), ("import numpy", NUMPY)):
        def once(contestant, mountpoint, window, code=code):
            begin = time.monotonic()
            contestant.mount(mountpoint)
            # Debian chooses BLAS by a link that belongs to no package.
            libs = "/usr/lib/x86_64-linux-gnu/blas:/usr/lib/x86_64-linux-gnu/lapack"
            lib.run("chroot", mountpoint, "/usr/bin/env", f"LD_LIBRARY_PATH={libs}", "/usr/bin/python3", "-c", code)
            return {"seconds": time.monotonic() - begin, **window.done()}
        results = setup.measure(once)
        peer, name = best_peer(results, "seconds")
        ours = {k: median([r[k] for r in results["davit"]]) for k in ("seconds", "requests", "bytes")}
        rows += [Row(what, ours["seconds"], "s", peer, name, 0.8),
                 Row("  requests", ours["requests"], ""), Row("  bytes", ours["bytes"] / 1e6, "MB")]
    return rows


def ls(setup):
    def once(contestant, mountpoint, window):
        contestant.mount(mountpoint)
        begin = time.monotonic()
        with open(os.devnull, "w") as null:
            subprocess.run(["ls", "-lR", mountpoint], stdout=null, check=True)
        return {"seconds": time.monotonic() - begin}
    results = setup.measure(once)
    peer, name = best_peer(results, "seconds")
    return [Row("ls -lR right after mount", median([r["seconds"] for r in results["davit"]]), "s", peer, name, 0.5)]


def rate(function, seconds=1.0):
    function()
    count, begin = 0, time.perf_counter()
    while True:
        for _ in range(100):
            function()
        count += 100
        took = time.perf_counter() - begin
        if took > seconds:
            return count / took


def fio(path, *options):
    out = json.loads(lib.run("fio", "--name=x", f"--filename={path}", "--readonly", "--output-format=json", *options))
    return out["jobs"][0]["read"]["bw_bytes"] / 1e6


def cold_sequential(path):
    """The better one of two: the first one still shares the disk with what the fill wrote."""
    best = 0
    for _ in range(2):
        lib.drop_caches()
        best = max(best, fio(path, "--rw=read", "--bs=1M", "--ioengine=psync"))
    return best


def warm_fio(path, engine):
    return fio(path, "--rw=read", "--bs=128k", f"--ioengine={engine}", "--invalidate=0", "--time_based", "--runtime=1")


def warm(setup):
    results = {}
    local, local_rates = setup.fresh("weights.bin"), []
    with setup.registry(False) as registry:
        makers = setup.contestants(registry, False)
        for i in range(setup.runs):
            for make in in_turn(makers, i):
                lib.drop_caches()
                with make() as contestant:
                    mountpoint = setup.fresh("mnt")
                    contestant.mount(mountpoint)
                    weights = os.path.join(mountpoint, "model/weights.bin")
                    with open(weights, "rb") as handle:
                        while handle.read(1 << 20):
                            pass
                    contestant.complete()
                    got = results.setdefault(contestant.name, {})

                    def add(key, value, got=got):
                        got.setdefault(key, []).append(value)
                    # Where the pages come to lie in memory makes a tenth of difference: three times anew.
                    for _ in range(3):
                        add("page cache dropped, sequential 1M", cold_sequential(weights))
                        add("warm sequential 128K", warm_fio(weights, "psync"))
                        add("warm mmap sequential", warm_fio(weights, "mmap"))
                    target = os.path.join(mountpoint, "usr/bin/env")
                    folder = os.path.join(mountpoint, "usr/bin")

                    def getxattr():
                        try:
                            os.getxattr(target, "security.capability")
                        except OSError:
                            pass
                    add("getxattr", rate(getxattr) / 1000)
                    add("open+close", rate(lambda: os.close(os.open(target, os.O_RDONLY))) / 1000)
                    small = os.path.join(mountpoint, "usr/lib/git-core")
                    add("readdir", rate(lambda: os.listdir(small)) / 1000)
                    if contestant.name == "davit":  # the same file without any of us: what the disk gives; it drops caches
                        if not os.path.exists(local):
                            shutil.copyfile(weights, local)
                        local_rates.extend(cold_sequential(local) for _ in range(3))
    limits = {"page cache dropped, sequential 1M": 1.8, "warm sequential 128K": 1, "warm mmap sequential": 1, "getxattr": 1.3, "open+close": 1, "readdir": 1}
    rows = []
    for key, limit in limits.items():
        peer = median(results["nydus"][key]) if "nydus" in results else None
        if key.startswith("page cache"):
            rows.append(Row(key, median(results["davit"][key]), "MB/s", median(local_rates), "local file"))
        rows.append(Row(key, median(results["davit"][key]), "k/s" if key in ("getxattr", "open+close", "readdir") else "MB/s", peer, "nydus", limit, True))
    return rows


def memory(setup):
    """50 mounts of one image, and 50 of ten images with the same content and configurations of their own."""
    rows = []
    for images in (1, 10):
        tags = setup.tags(images)
        with setup.registry(False) as registry:
            with lib.Davit(setup.fresh("davit"), f"{registry.host}/bench:davit", fill=False) as davit:
                def mount(i, tags=tags, registry=registry, davit=davit):
                    mountpoint = setup.fresh("mnt")
                    davit.mount(mountpoint, f"{registry.host}/bench:{tags[i % len(tags)]}")
                    with open(os.path.join(mountpoint, "usr/bin/env"), "rb") as handle:
                        handle.read(1)
                mount(0)
                first = lib.pss_kib(davit.pid)
                for i in range(1, 50):
                    mount(i)
                time.sleep(12)  # threads that are no longer needed end
                each = (lib.pss_kib(davit.pid) - first) / 49 / 1024
        rows.append(Row(f"PSS of each further mount at 50 mounts of {images} image{'s' if images > 1 else ''}", each, "MiB", 0.3, "limit", 1.0))
    return rows


def big(setup):
    """One 5 GB file, no limit on the link, against what its parts can do at best."""
    layout = lib.big_image(lib.CACHE)
    floor = os.path.join(lib.BIN, "bench_floor")
    rates = {"davit": [], "d": [], "f": []}
    local = setup.fresh("big")
    for _ in range(setup.runs):
        with lib.Registry(layout) as registry:
            lib.drop_caches()
            rates["d"].append(float(lib.run(floor, "download", f"{registry.host}/bench:davit", local)))
            with lib.serving(floor, local, setup.fresh("mnt")) as path:  # it is in the page cache
                rates["f"].append(lib.read_file(path))
            os.unlink(local)
            lib.drop_caches()
            with lib.Davit(setup.fresh("davit"), f"{registry.host}/bench:davit") as davit:
                mountpoint = setup.fresh("mnt")
                davit.mount(mountpoint)
                rates["davit"].append(lib.read_file(os.path.join(mountpoint, "model.bin")))
    d, f = median(rates["d"]), median(rates["f"])
    return [Row("8 downloads, decode, verify, write (d)", d, "MB/s"), Row("warm, minimal FUSE (f)", f, "MB/s"),
            Row("one 5 GB file, cold, no limit", median(rates["davit"]), "MB/s", d * f / (d + f), "d*f/(d+f)", 0.85, True)]


ALL = {"build": build, "first-byte": first_byte, "start": start, "ls": ls, "full": full, "warm": warm, "memory": memory, "big": big}
