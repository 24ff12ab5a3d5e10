#!/usr/bin/env python3
"""Makes an ordinary OCI image of software that is installed on this machine.

    make_image.py LAYOUT TAG [--layer PACKAGE,PACKAGE...]... [--dir PATH[=TARGET]]...

LAYOUT is an OCI layout directory (created). Each --layer becomes one gzip layer with the files of
these Debian packages and of everything they depend on that no earlier layer holds; each --dir
becomes one layer with that directory. Deterministic for the same files.
"""
import argparse
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def installed():
    """Installed packages with their dependencies' names."""
    out = {}
    provides = {}
    for record in run("dpkg-query", "-W", "-f", "${Package}\t${Depends}\t${Pre-Depends}\t${Provides}\t${db:Status-Status}\n").splitlines():
        name, depends, pre, provided, status = record.split("\t")
        if status != "installed":
            continue
        alternatives = [re.sub(r"[ (:\[].*", "", part.strip().split("|")[0].strip())
                        for part in (depends + "," + pre).split(",") if part.strip()]
        out[name] = alternatives
        for part in provided.split(","):
            provides.setdefault(re.sub(r"[ (].*", "", part.strip()), name)
    return out, provides


def closure(wanted, have, provides):
    todo, seen = list(wanted), []
    while todo:
        name = todo.pop()
        name = name if name in have else provides.get(name, name)
        if name in seen:
            continue
        if name not in have:
            if name in wanted:
                sys.exit(f"make_image: package {name} is not installed")
            continue
        seen.append(name)
        todo += have[name]
    return sorted(seen)


def real(path):
    """/lib/x -> /usr/lib/x on merged-/usr systems, so that one file has one name."""
    parent = os.path.realpath(os.path.dirname(path))
    return os.path.join(parent, os.path.basename(path))


def package_paths(packages):
    paths = set()
    for name in packages:
        for path in run("dpkg", "-L", name).splitlines():
            if path.startswith("/") and path != "/." and os.path.lexists(path):
                paths.add(real(path))
    return sorted(paths)


class Layer:
    """One gzip tar layer in memory-mapped form on disk."""

    def __init__(self, layout):
        self.path = os.path.join(layout, "layer.tmp")
        self.raw = open(self.path, "wb")
        self.zipped = gzip.GzipFile(fileobj=self.raw, mode="wb", compresslevel=6, mtime=0, filename="")
        self.diff = hashlib.sha256()
        self.tar = tarfile.open(fileobj=self, mode="w|", format=tarfile.PAX_FORMAT)
        self.names = set()

    def write(self, data):
        self.diff.update(data)
        return self.zipped.write(data)

    def add(self, path, name):
        name = name.strip("/")
        if not name or name in self.names:
            return
        parent = os.path.dirname(name)
        if parent and parent not in self.names:
            self.add(os.path.join("/", parent) if os.path.isdir("/" + parent) else os.path.dirname(path), parent)
        self.names.add(name)
        info = self.tar.gettarinfo(path, name)
        if info is None:
            return  # a socket
        info.uname = info.gname = ""
        if info.isreg():
            with open(path, "rb") as handle:
                self.tar.addfile(info, handle)
        else:
            self.tar.addfile(info)

    def finish(self, layout):
        self.tar.close()
        self.zipped.close()
        self.raw.close()
        digest = hashlib.sha256()
        with open(self.path, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
        name = digest.hexdigest()
        size = os.path.getsize(self.path)
        os.replace(self.path, os.path.join(layout, "blobs/sha256", name))
        return {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:" + name,
                "size": size}, "sha256:" + self.diff.hexdigest()


def put(layout, value):
    data = json.dumps(value, separators=(",", ":")).encode()
    name = hashlib.sha256(data).hexdigest()
    with open(os.path.join(layout, "blobs/sha256", name), "wb") as handle:
        handle.write(data)
    return {"digest": "sha256:" + name, "size": len(data)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("layout")
    parser.add_argument("tag")
    parser.add_argument("--layer", action="append", default=[])
    parser.add_argument("--dir", action="append", default=[])
    options = parser.parse_args()
    os.makedirs(os.path.join(options.layout, "blobs/sha256"), exist_ok=True)

    have, provides = installed()
    layers, diffs, done = [], [], set()
    # On merged-/usr systems programs expect /bin, /lib and so on to be links.
    links = [p for p in ("/bin", "/lib", "/lib64", "/sbin") if os.path.islink(p)]
    for number, spec in enumerate(options.layer):
        packages = [p for p in closure(spec.split(","), have, provides) if p not in done]
        done.update(packages)
        layer = Layer(options.layout)
        for path in (links if number == 0 else []) + package_paths(packages):
            layer.add(path, path)
        descriptor, diff = layer.finish(options.layout)
        layers.append(descriptor)
        diffs.append(diff)
    for spec in options.dir:
        source, _, target = spec.partition("=")
        layer = Layer(options.layout)
        for folder, names, files in os.walk(source):
            names.sort()
            for name in sorted(names + files):
                path = os.path.join(folder, name)
                layer.add(path, os.path.join(target or source, os.path.relpath(path, source)))
        descriptor, diff = layer.finish(options.layout)
        layers.append(descriptor)
        diffs.append(diff)

    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = put(options.layout, {"architecture": arch, "os": "linux", "config": {"Env": ["PATH=/usr/bin:/bin"]},
                                  "rootfs": {"type": "layers", "diff_ids": diffs},
                                  "history": [{"created_by": "make_image"} for _ in diffs]})
    config["mediaType"] = "application/vnd.oci.image.config.v1+json"
    manifest = put(options.layout, {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                                    "config": config, "layers": layers})
    manifest.update(mediaType="application/vnd.oci.image.manifest.v1+json",
                    annotations={"org.opencontainers.image.ref.name": options.tag})
    with open(os.path.join(options.layout, "oci-layout"), "w") as handle:
        handle.write('{"imageLayoutVersion":"1.0.0"}')
    with open(os.path.join(options.layout, "index.json"), "w") as handle:
        json.dump({"schemaVersion": 2, "manifests": [manifest]}, handle)
    print(f"{len(layers)} layers, {sum(layer['size'] for layer in layers)} bytes, {manifest['digest']}")


if __name__ == "__main__":
    main()
