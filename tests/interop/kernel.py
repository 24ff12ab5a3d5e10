"""Mounts of the kernel's EROFS driver over a bootstrap and its uncompressed blobs."""
import contextlib
import ctypes
import errno
import json
import os
import subprocess

MS_RDONLY = 1
libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, options):
    """0 or an errno. mount(8) would put a loop device in between, and cannot pass device= then."""
    done = libc.mount(os.fsencode(source), os.fsencode(target), b"erofs", ctypes.c_ulong(MS_RDONLY), os.fsencode(options))
    return 0 if done == 0 else ctypes.get_errno()


@contextlib.contextmanager
def erofs(bootstrap, devices, target):
    """Mounts files as they are, as kernels from 6.12 on can; loop devices otherwise."""
    loops = []

    def loop(file):
        device = subprocess.run(["losetup", "--find", "--show", "--read-only", file], check=True, capture_output=True, text=True).stdout.strip()
        loops.append(device)
        return device

    def options(files):
        return ",".join("device=" + file for file in files)

    os.makedirs(target, exist_ok=True)
    try:
        failed = mount(bootstrap, target, options(devices))
        if failed == errno.ENOTBLK:
            failed = mount(loop(bootstrap), target, options([loop(file) for file in devices]))
        if failed:
            raise RuntimeError(f"EROFS mount of {bootstrap}: {os.strerror(failed)}")
        try:
            yield target
        finally:
            subprocess.run(["umount", target], check=True)
    finally:
        for device in loops:
            subprocess.run(["losetup", "--detach", device], check=False)


def devices_from_cache(cache, blobs):
    """The files of a nydusd's cache that hold these blobs' uncompressed chunks; their length is that of the device."""
    files = []
    for blob in blobs:
        path = os.path.join(cache, blob["id"] + ".blob.data")
        # Chunks that no file of the image needs at the end are absent there, the device has them all.
        size = -(-blob["uncompressed_bytes"] // 4096) * 4096
        if os.path.getsize(path) < size:
            os.truncate(path, size)
        files.append(path)
    return files


def blobs_of(davit, run, bootstrap):
    return json.loads(run(davit, "inspect", "--bootstrap", bootstrap, "--output", "json"))["blobs"]
