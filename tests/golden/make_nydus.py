#!/usr/bin/env python3
"""Makes tests/golden/nydus again: small images by the real nydus-image (2.x), with what is in them.

    NYDUS_BIN=DIR DAVIT_BIN_DIR=build/release/bin tests/golden/make_nydus.py        (root: devices and owners)

Each folder holds image.boot and its blob(s), named by id; those of inline-* a blob only, with the bootstrap inside.
expected.json describes the tree, expected-merged.json that of merged-*, two layers that the real tool has merged.
"""
import itertools
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "interop"))
import layers  # noqa: E402
import lib  # noqa: E402

CREATE = [os.path.join(lib.nydus_dir(), "nydus-image"), "create", "--fs-version", "6"]
PREFETCH = ["/sizes/65537", "/names/-dash", "/many"]


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


def small_layers():
    """Two layers that hide, replace and delete; what is hidden leaves chunks that no file uses."""
    rnd = random.Random(100)
    lower = layers.Layer()
    for folder in ("names", "sizes", "opaque", "doomed"):
        lower.folder(folder, time="1500000000")
    for name in [" space", "!bang", "-dash", "+plus", "n" * 255]:
        lower.add("names/" + name, b"lower " + name.encode(), time="1500000000")
    for size in [0, 1, 4095, 4096, 4097, 8193]:
        lower.add(f"sizes/{size}", rnd.randbytes(size // 4) + b"t" * (size - size // 4), time="1500000000")
    lower.add("opaque/lower", rnd.randbytes(5000), time="1500000000").add("doomed/file", rnd.randbytes(9000), time="1500000000")
    lower.add("names/hard", kind=tarfile.LNKTYPE, link="sizes/4097")
    upper = layers.Layer(parents="1500000000")
    upper.add(".wh.doomed").add("names/.wh.!bang").add("names/+plus", b"upper", mode=0o600, owner=(70000, 80000), time="1500000001")
    upper.folder("opaque", 0o700, time="1500000002").add("opaque/.wh..wh..opq").add("opaque/upper", b"new", time="1500000002")
    upper.add("names/note", b"x", xattrs={"user.note": "value"}, time="1500000003").folder("empty", time="1500000004")
    upper.add("sizes/copy", rnd.randbytes(4097), time="1500000004")
    upper.add("names/null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666, time="1500000005")
    upper.add("names/link", kind=tarfile.SYMTYPE, link="../sizes/1", mode=0o777, time="1500000006")
    return [lower.finish(), upper.finish()]


def write_expected(path, tree):
    def text(value):
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, list):
            return [[name, data.hex()] for name, data in value]
        return os.fsdecode(str(value))
    described = {os.fsdecode(path): [text(value) for value in item] for path, item in lib.describe(tree, times="ns").items()}
    with open(path, "w") as handle:
        json.dump(described, handle, indent=0, sort_keys=True)


def create(folder, tree, *flags, boot="image.boot", **options):
    os.makedirs(folder, exist_ok=True)
    lib.run(*CREATE, "--type", "dir-rafs", "--blob-dir", folder, "--bootstrap", os.path.join(folder, boot), *flags, tree, **options)
    external = os.path.join(folder, boot.removesuffix("boot") + "external")  # describes external blobs, of which there are none
    if os.path.exists(external):
        os.unlink(external)


def single_images(target, tree):
    variants = {}
    for compressor, digester, chunk in itertools.product(["none", "lz4_block", "zstd"], ["blake3", "sha256"], ["0x1000", "0x10000"]):
        variants[f"{compressor}-{digester}-{chunk}"] = ["--compressor", compressor, "--digester", digester, "--chunk-size", chunk]
    variants["batch"] = ["--compressor", "zstd", "--batch-size", "0x8000"]
    variants["toc"] = ["--compressor", "zstd", "--features", "blob-toc"]
    variants["toc-batch"] = ["--compressor", "zstd", "--features", "blob-toc", "--batch-size", "0x8000"]
    for name, flags in variants.items():
        create(os.path.join(target, name), tree, *flags)
    create(os.path.join(target, "prefetch"), tree, "--compressor", "zstd", "--prefetch-policy", "fs", input="\n".join(PREFETCH) + "\n")
    for name, flags in {"inline": ["--compressor", "lz4_block", "--digester", "sha256"],
                        "inline-toc": ["--compressor", "zstd", "--features", "blob-toc"]}.items():
        os.makedirs(os.path.join(target, name))
        lib.run(*CREATE, "--type", "dir-rafs", "--blob-dir", os.path.join(target, name), "--blob-inline-meta", *flags, tree)
        (blob,) = os.listdir(os.path.join(target, name))
        lib.name_by_digest(os.path.join(target, name), blob)


def image_with_dictionary(target, tree, work):
    """The dictionary is an image of some of the files; both blobs are needed then."""
    folder = os.path.join(target, "dict")
    some = os.path.join(work, "some")
    shutil.copytree(os.path.join(tree, "sizes"), os.path.join(some, "sizes"))
    flags = ["--compressor", "zstd", "--chunk-size", "0x10000"]
    create(folder, some, *flags, boot="dict.boot")
    dictionary = os.path.join(work, "dict.boot")
    os.rename(os.path.join(folder, "dict.boot"), dictionary)
    create(folder, tree, *flags, "--chunk-dict", "bootstrap=" + dictionary)


def merged_images(target, work):
    tars = small_layers()
    tree = os.path.join(work, "merged")
    os.makedirs(tree)
    layers.flatten(tree, tars)
    write_expected(os.path.join(target, "expected-merged.json"), tree)
    for name, flags in {"merged-toc": ["--compressor", "zstd", "--features", "blob-toc"],
                        "merged-plain": ["--compressor", "none", "--digester", "sha256"]}.items():
        folder, boots = os.path.join(target, name), []
        os.makedirs(folder)
        for i, tar in enumerate(tars):
            path = os.path.join(work, f"{i}.tar")
            with open(path, "wb") as handle:
                handle.write(tar)
            boots.append(inline_layer(folder, path, work, flags))
        lib.run(CREATE[0], "merge", *boots, "--bootstrap", os.path.join(folder, "image.boot"))


def inline_layer(folder, tar, work, flags):
    """Adds the blob of a layer to the folder; its bootstrap, in a file named by the blob."""
    before = set(os.listdir(folder))
    lib.run(*CREATE, "--type", "tar-rafs", "--blob-dir", folder, "--blob-inline-meta", "--whiteout-spec", "none",
            "--chunk-size", "0x1000", *flags, tar)
    (name,) = set(os.listdir(folder)) - before
    name = lib.name_by_digest(folder, name)
    davit = os.path.join(os.environ["DAVIT_BIN_DIR"], "davit")
    lib.run(davit, "extract", os.path.join(folder, name), "-o", os.path.join(work, name))
    return os.path.join(work, name)


def main():
    target = os.path.join(HERE, "nydus")
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    with lib.temp_dir() as work:
        tree = os.path.join(work, "tree")
        small_tree(tree)
        write_expected(os.path.join(target, "expected.json"), tree)
        single_images(target, tree)
        image_with_dictionary(target, tree, work)
        merged_images(target, work)
    version = subprocess.run([CREATE[0], "--version"], capture_output=True, text=True).stdout.split()[1]
    with open(os.path.join(target, "VERSION"), "w") as handle:
        handle.write(version + "\n")


if __name__ == "__main__":
    main()
