"""A tree that holds what breaks image tools."""
import os
import random
import stat

CHUNK = 1 << 20
NAMES = [" space", "!bang", "#hash", "%percent", "+plus", ",comma", "-dash", "x" * 255, "ü-utf8"]  # most sort below "."
RAW_NAME = "raw-\udcff\udcfe-bytes"
BORDERS = [0, 1, 511, 512, 4095, 4096, 4097, 65535, 65536, 65537, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 4097,
           16 * CHUNK - 1, 16 * CHUNK, 16 * CHUNK + 1]


def half_random(rnd, size):
    """Some chunks compress, some do not, and no two are equal."""
    return rnd.randbytes(size // 2) + b"t" * (size - size // 2)


def make_tree(root):
    """A tree with what breaks image tools: names, sizes on and off every border, links, devices."""
    rnd = random.Random(4711)
    os.makedirs(root)

    def put(name, data, mode=0o644):
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(data)
        os.chmod(path, mode)
        return path

    for name in NAMES:
        put("names/" + name, b"content of " + name.encode())
    put("names/" + RAW_NAME, b"not utf-8")
    os.makedirs(os.path.join(root, "names/!dir/deeper"), exist_ok=True)
    # In the root too, where "." and ".." are not the first entries then.
    put("!first", b"before the dot")
    put("-/+/,", b"directories of one odd letter")
    for size in BORDERS:
        put(f"sizes/{size}", half_random(rnd, size))
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
