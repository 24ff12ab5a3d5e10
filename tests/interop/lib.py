"""Helpers of the interop run: the peers' programs, comparison of trees, mounts that are always undone."""
import contextlib
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time

PINNED = "34e6071e"  # the commit of nydus that all figures and golden files are made with


def nydus_dir():
    """Where the real nydus binaries are; nothing here builds them."""
    if "NYDUS_BIN" in os.environ:
        return os.environ["NYDUS_BIN"]
    if "NYDUS_SRC" in os.environ:
        return os.path.join(os.environ["NYDUS_SRC"], "target/release")
    return os.path.join(os.environ.get("DAVIT_CACHE", "/var/cache/davit"), "peers/bin")


def pin_warning():
    """What to say when the binaries come from a checkout of nydus that is not at the pinned commit, or None."""
    if "NYDUS_BIN" in os.environ or "NYDUS_SRC" not in os.environ:
        return None
    checkout = os.environ["NYDUS_SRC"]
    git = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True)
    head = git.stdout.strip()
    if git.returncode == 0 and head.startswith(PINNED):
        return None
    found = f"is at {head[:8]}" if git.returncode == 0 else "has no commit that git can tell"
    return f"warning: NYDUS_SRC={checkout} {found}, not at {PINNED}: results may differ from those in the documents"


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
        said = (result.stdout + result.stderr).split("Stack backtrace:")[0]  # of anyhow, long and of no use
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {result.returncode}\n{said[-2000:]}")
    return result.stdout


def name_by_digest(folder, name):
    """Registries know the blob by the digest of all of it; the real builder leaves some of it out of the name. The new name."""
    with open(os.path.join(folder, name), "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    os.rename(os.path.join(folder, name), os.path.join(folder, digest))
    return digest


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
                raise RuntimeError("nydusd ended: " + "\n".join(line for line in open(log.name) if "Error" in line or "\t" in line)[-1500:])
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
