#!/usr/bin/env python3
"""Makes tests/golden/nydus again: small images by the real nydus-image (2.x), with what is in them.

    NYDUS_BIN=DIR tests/golden/make_nydus.py        (root: devices and owners)

Each folder holds image.boot and its blob(s), named by id; expected.json describes the tree.
"""
import itertools
import json
import os
import random
import shutil
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "interop"))
import lib  # noqa: E402


def small_tree(root):
    rnd = random.Random(99)
    os.makedirs(root)

    def put(name, data, mode=0o644):
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(data)
        os.chmod(path, mode)

    for name in [" space", "!bang", "-dash", "+plus", "n" * 255]:
        put("names/" + name, name.encode())
    for size in [0, 1, 4095, 4096, 4097, 65535, 65536, 65537]:
        put(f"sizes/{size}", rnd.randbytes(size // 4) + b"t" * (size - size // 4))
    for i in range(40):
        put(f"many/{i:02}", b"small %d\n" % i * (i + 1))
    os.link(os.path.join(root, "many/01"), os.path.join(root, "many/hard"))
    os.symlink("../many/02", os.path.join(root, "names/link"))
    os.mkfifo(os.path.join(root, "names/fifo"))
    os.mknod(os.path.join(root, "names/null"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.chown(os.path.join(root, "many/03"), 70000, 80000)
    os.setxattr(os.path.join(root, "many/04"), "user.note", b"\x00binary")
    for folder, names, files in os.walk(root):
        for name in names + files:
            os.utime(os.path.join(folder, name), ns=(0, 1_500_000_000_250_000_000), follow_symlinks=False)
    os.utime(root, ns=(0, 1_500_000_000_000_000_000))


def main():
    nydus = os.path.join(lib.nydus_dir(), "nydus-image")
    target = os.path.join(HERE, "nydus")
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    with lib.temp_dir() as work:
        tree = os.path.join(work, "tree")
        small_tree(tree)
        described = {os.fsdecode(path): [value.hex() if isinstance(value, bytes) else
                                         [[name, data.hex()] for name, data in value] if isinstance(value, list) else
                                         os.fsdecode(value) for value in map(lambda v: v if not isinstance(v, int) else str(v), item)]
                     for path, item in lib.describe(tree, times="ns").items()}
        with open(os.path.join(target, "expected.json"), "w") as handle:
            json.dump(described, handle, indent=0, sort_keys=True)
        variants = {}
        for compressor, digester, chunk in itertools.product(["none", "lz4_block", "zstd"], ["blake3", "sha256"], ["0x1000", "0x10000"]):
            variants[f"{compressor}-{digester}-{chunk}"] = ["--compressor", compressor, "--digester", digester, "--chunk-size", chunk]
        variants["batch"] = ["--compressor", "zstd", "--batch-size", "0x8000"]
        variants["toc"] = ["--compressor", "zstd", "--features", "blob-toc"]
        variants["toc-batch"] = ["--compressor", "zstd", "--features", "blob-toc", "--batch-size", "0x8000"]
        for name, flags in variants.items():
            folder = os.path.join(target, name)
            os.makedirs(folder)
            lib.run(nydus, "create", "--fs-version", "6", "--type", "dir-rafs", "--blob-dir", folder, "--bootstrap", os.path.join(folder, "image.boot"), *flags, tree)
            external = os.path.join(folder, "image.external")  # describes external blobs, of which there are none
            if os.path.exists(external):
                os.unlink(external)
        version = subprocess.run([nydus, "--version"], capture_output=True, text=True).stdout.split()[1]
        with open(os.path.join(target, "VERSION"), "w") as handle:
            handle.write(version + "\n")


if __name__ == "__main__":
    main()
