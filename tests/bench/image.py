#!/usr/bin/env python3
"""The benchmark image, made once and kept by version: real software from this machine's packages,
its Go tree if there is one, and a "model" (256 MiB that do not compress, 64 MiB of text).

    image.py DIRECTORY     prints the OCI layout's path
"""
import hashlib
import os
import pathlib
import subprocess
import sys

VERSION = "3"
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LAYERS = ["libc6,bash,coreutils,perl,git,python3,libsqlite3-0,python3-numpy", "g++,cmake,libgrpc++-dev,libprotobuf-dev", "clang-19,llvm-15-dev"]


def model(directory):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "weights.bin"), "wb") as handle:
        for i in range(256 << 4):  # 64 KiB each
            handle.write(b"".join(hashlib.sha256(b"%d:%d" % (i, j)).digest() for j in range(2048)))
    words = ["attention", "layer", "weight", "token", "the", "of", "norm", "bias", "head", "query"]
    with open(os.path.join(directory, "vocabulary.txt"), "w") as handle:
        size, n = 0, 0
        while size < 64 << 20:
            digest = hashlib.md5(b"%d" % n).digest()
            line = " ".join(words[b % 10] + str(b) for b in digest) + "\n"
            handle.write(line)
            size += len(line)
            n += 1


def main():
    base = pathlib.Path(sys.argv[1]) / f"bench-image-{VERSION}"
    layout = base / "layout"
    if (layout / "index.json").exists():
        print(layout)
        return
    base.mkdir(parents=True, exist_ok=True)
    model(base / "model")
    command = [sys.executable, str(ROOT / "scripts/make_image.py"), str(layout), "src"]
    for spec in LAYERS:
        command += ["--layer", spec]
    if os.path.isdir("/usr/local/go"):
        command += ["--dir", "/usr/local/go"]
    command += ["--dir", f"{base}/model=/model"]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), file=sys.stderr)
    print(layout)


if __name__ == "__main__":
    main()
