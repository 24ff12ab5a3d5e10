#!/usr/bin/env python3
"""Third-party headers stay inside the modules that wrap them, and out of headers.

WRAPPED says which folders may include what; a header in <> that is neither there nor of the system is
a library that nobody has wrapped. Fails with one line per violation.
"""
import re
import subprocess
import sys

WRAPPED = {
    r"curl/": ["common/http"],
    r"httplib\.h": ["common/http"],
    r"openssl/": ["common/digest", "storage/registry"],
    r"llvm-c/": ["common/digest"],
    r"(zstd|lz4|zlib)\.h": ["common/codec"],
    r"isa-l/": ["common/codec", "common/digest"],
    r"spdlog/": ["common/base"],
    r"nlohmann/json\.hpp": ["common/json", "storage/registry", "storage/cache", "rafs/image", "rafs/convert",
                             "common/config", "common/metrics", "daemon", "csi/core", "cli"],
    r"toml\+\+/": ["common/toml"],
    r"sqlite3\.h": ["storage/cache", "daemon/core"],
    r"(fuse_lowlevel|fuse)\.h": ["rafs/fuse"],
    r"archive(_entry)?\.h": ["rafs/builder", "rafs/image", "rafs/convert"],
    r"grpc(pp)?/": ["csi/rpc"],
    r"google/protobuf/": ["csi/rpc"],
    r"prometheus/": ["common/metrics"],
    r"CLI/": ["cli"],
}
# Headers of the standard library, of C and POSIX, and of the kernel.
STANDARD = re.compile(r"[a-z_]+$")
SYSTEM = re.compile(r"(sys|linux|net|netinet|arpa|asm|bits)/\w+\.h$")
C_HEADERS = set("""assert ctype dirent dlfcn elf endian err errno execinfo fcntl fnmatch ftw getopt glob grp inttypes
    limits locale malloc math mntent netdb poll pthread pwd sched semaphore setjmp signal spawn stdalign stdarg
    stdbool stddef stdint stdio stdlib string strings syslog termios time ucontext unistd utime wchar""".split())
# Used everywhere: a vocabulary, not a library to hide.
EVERYWHERE = re.compile(r"fmt/|gtest/|gmock/")


def known(name):
    return (STANDARD.match(name) or SYSTEM.match(name) or EVERYWHERE.match(name) or name.removesuffix(".h") in C_HEADERS
            or any(re.match(pattern, name) for pattern in (*WRAPPED, *IN_HEADERS)))


# cli/ declares option tables; common/toml is the settings of a library of headers.
IN_HEADERS = (r"nlohmann/json_fwd\.hpp", r"CLI/", r"toml\+\+/")

bad = []
files = subprocess.run(["git", "ls-files", "*.cc", "*.h"], capture_output=True, text=True, check=True).stdout.split()
for path in files:
    if path.startswith("tests/"):
        continue
    for number, line in enumerate(open(path, encoding="utf-8", errors="replace"), 1):
        match = re.match(r"\s*#\s*include\s*([<\"])([^>\"]+)[>\"]", line)
        if not match:
            continue
        name = match[2]
        if match[1] == "<" and not known(name):
            bad.append(f"{path}:{number}: <{name}> is of a library that scripts/check_wrappers.py does not know: wrap it in a "
                       "module of its own and say so in WRAPPED")
        for pattern, folders in WRAPPED.items():
            if not re.match(pattern, name):
                continue
            if not any(path.startswith(folder + "/") for folder in folders):
                bad.append(f"{path}:{number}: {name} belongs into {', '.join(folders)}")
            elif path.endswith(".h") and not any(re.match(p, name) for p in IN_HEADERS):
                bad.append(f"{path}:{number}: {name} in a header; include it in a .cc file")
print("\n".join(bad))
sys.exit(bool(bad))
