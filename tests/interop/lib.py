"""Helpers of the interop run: an odd tree, comparison of trees, mounts that are always undone."""
import contextlib
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import tempfile
import time

CHUNK = 1 << 20


def nydus_dir():
    """Where the real nydus binaries are; nothing here builds them."""
    if "NYDUS_BIN" in os.environ:
        return os.environ["NYDUS_BIN"]
    if "NYDUS_SRC" in os.environ:
        return os.path.join(os.environ["NYDUS_SRC"], "target/release")
    return os.path.join(os.environ.get("DAVIT_CACHE", "/var/cache/davit"), "peers/bin")


def make_tree(root):
    """A tree with what breaks image tools: names, sizes on and off every border, links, devices."""
    rnd = random.Random(4711)
    os.makedirs(root)

    def put(name, data, mode=0o644):
        path = os.path.join(os.fsencode(root), name if isinstance(name, bytes) else name.encode())
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(data)
        os.chmod(path, mode)
        return path

    for name in [" space", "!bang", "#hash", "%percent", "+plus", ",comma", "-dash", "x" * 255, "ü-utf8"]:
        put("names/" + name, b"content of " + name.encode())
    put(b"names/raw-\xff\xfe-bytes", b"not utf-8")
    os.makedirs(os.path.join(root, "names/!dir/deeper"), exist_ok=True)
    for size in [0, 1, 511, 512, 4095, 4096, 4097, 65535, 65536, 65537, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 4097]:
        put(f"sizes/{size}", rnd.randbytes(size // 2) + b"t" * (size - size // 2))
    put("sizes/zeros", bytes(2 * CHUNK + 5))
    put("sizes/copy-of-65537", open(os.path.join(root, "sizes/65537"), "rb").read())
    with open(os.path.join(root, "sizes/sparse"), "wb") as handle:
        handle.seek(3 * CHUNK)
        handle.write(b"end")
    for i in range(300):
        put(f"many/file-{i:04}", f"small file {i}\n".encode() * (i % 40 + 1))
    os.link(os.path.join(root, "many/file-0001"), os.path.join(root, "many/hard-1"))
    os.link(os.path.join(root, "many/file-0001"), os.path.join(root, "names/hard-2"))
    os.symlink("../many/file-0002", os.path.join(root, "names/link"))
    os.symlink("/absolute/nowhere", os.path.join(root, "names/dangling"))
    os.symlink("t" * 1000, os.path.join(root, "names/long-target"))
    put("modes/setuid", b"x", 0o4755)
    put("modes/none", b"y", 0o000)
    os.mkfifo(os.path.join(root, "modes/fifo"))
    os.mknod(os.path.join(root, "modes/char"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(os.path.join(root, "modes/block"), 0o600 | stat.S_IFBLK, os.makedev(8, 1))
    os.chown(os.path.join(root, "modes/setuid"), 70000, 80000)
    os.chmod(os.path.join(root, "modes/setuid"), 0o4755)
    xattrs = put("xattrs/file", b"with attributes").decode()
    os.setxattr(xattrs, "user.short", b"value")
    # Without a newline: the real builder's tar reader ends a PAX record at the first one.
    os.setxattr(xattrs, "user.binary", bytes(b for b in range(256) if b != 10))
    os.setxattr(xattrs, "trusted.note", b"t")
    os.setxattr(xattrs, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(os.path.join(root, "xattrs"), "user.dir", b"d")
    for folder, names, files in os.walk(os.fsencode(root)):
        for name in names + files:
            os.utime(os.path.join(folder, name), ns=(0, 1_600_000_000_000_000_000 + 123_456_789), follow_symlinks=False)
    os.utime(root, ns=(0, 1_600_000_000_000_000_000))


def describe(root, times=True, xattrs=True):
    """path -> everything that must be equal."""
    root = os.fsencode(root)
    out = {}
    links = {}
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            item = [stat.S_IFMT(st.st_mode), st.st_mode & 0o7777, st.st_uid, st.st_gid]
            if times:
                item.append(st.st_mtime_ns if times == "ns" else st.st_mtime_ns // 10**9)
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as handle:
                    item += [st.st_size, hashlib.file_digest(handle, "sha256").hexdigest(), st.st_nlink]
                if st.st_nlink > 1:
                    item.append(links.setdefault(st.st_ino, os.path.relpath(path, root)))
            elif stat.S_ISLNK(st.st_mode):
                item.append(os.readlink(path))
            elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
                item.append(st.st_rdev)
            if xattrs and not stat.S_ISLNK(st.st_mode):
                item.append(sorted((n, os.getxattr(path, n, follow_symlinks=False)) for n in os.listxattr(path, follow_symlinks=False)
                                   if not n.startswith("security.selinux")))
            out[os.path.relpath(path, root)] = item
    # Hard links: which name comes first depends on the order of listing, the set does not.
    groups = {}
    for path, item in out.items():
        if item[0] == stat.S_IFREG and len(item) > 3 and item[-2 if xattrs else -1] in out:
            groups.setdefault(item[-2 if xattrs else -1], []).append(path)
    for paths in groups.values():
        for path in paths:
            out[path][-2 if xattrs else -1] = min(paths)
    return out


def differences(expected, found, limit=10):
    lines = [f"missing: {p!r}" for p in sorted(expected.keys() - found.keys())]
    lines += [f"too many: {p!r}" for p in sorted(found.keys() - expected.keys())]
    lines += [f"differs: {p!r}: {expected[p]} != {found[p]}" for p in sorted(expected.keys() & found.keys()) if expected[p] != found[p]]
    return lines[:limit]


def run(*command, **options):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace", **options)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {result.returncode}\n{(result.stdout + result.stderr)[-2000:]}")
    return result.stdout


@contextlib.contextmanager
def temp_dir():
    path = tempfile.mkdtemp(prefix="davit-interop-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def wait_for(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise RuntimeError(f"{what}: not within {seconds} s")


@contextlib.contextmanager
def nydusd(binary, bootstrap, blob_dir, mountpoint, work):
    """A real nydusd over local files."""
    config = os.path.join(work, "nydusd.json")
    cache = os.path.join(work, "nydus-cache")
    os.makedirs(cache, exist_ok=True)
    with open(config, "w") as handle:
        json.dump({"device": {"backend": {"type": "localfs", "config": {"dir": blob_dir}},
                              "cache": {"type": "blobcache", "config": {"work_dir": cache}}},
                   "mode": "direct", "digest_validate": False, "enable_xattr": True}, handle)
    log = open(os.path.join(work, "nydusd.log"), "w")
    process = subprocess.Popen([binary, "fuse", "--rlimit-nofile", "0", "--config", config, "--mountpoint", mountpoint,
                                "--bootstrap", bootstrap, "--apisock", os.path.join(work, "api.sock"), "--log-level", "warn"],
                               stdout=log, stderr=subprocess.STDOUT)
    try:
        def up():
            if process.poll() is not None:
                raise RuntimeError("nydusd ended: " + open(log.name).read()[-1500:])
            return os.path.ismount(mountpoint)
        wait_for(up, "nydusd mount")
        yield
    finally:
        subprocess.run(["umount", "-l", mountpoint], capture_output=True)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
