#!/usr/bin/env python3
"""10 000 files open at once, by a davitd that may have 1024 descriptors."""
import os
import resource
import subprocess
import sys
import unittest

from faults_fixture import FaultCase, read

COUNT = 10_000


class ManyFilesTest(FaultCase):
    FILES = {f"d{n % 100}/f{n}": f"content of {n}\n".encode() * (1 + n % 50) for n in range(COUNT)}
    CONVERT = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * COUNT, max(limits[1], 2 * COUNT)))
        cls.addClassCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)

    def open_all(self, point):
        handles = []
        self.addCleanup(lambda: [os.close(fd) for fd in handles])
        for name in self.FILES:
            handles.append(os.open(os.path.join(point, name), os.O_RDONLY))
        return handles

    def test_all_open_and_all_read(self):
        self.start_daemon()
        subprocess.run(["prlimit", "--pid", str(self.daemon.process.pid), "--nofile=1024:1024"], check=True)
        point = self.mount()
        handles = self.open_all(point)
        self.assertEqual(len(handles), COUNT)
        for fd, data in zip(handles, self.FILES.values()):
            self.assertEqual(os.pread(fd, len(data) + 1, 0), data)
        # A second mount, and new files, beside them.
        self.assertEqual(read(os.path.join(self.mount("n"), "d7/f7")), self.FILES["d7/f7"])
        self.assertLess(len(os.listdir(f"/proc/{self.daemon.process.pid}/fd")), 300)
        info = self.daemon.call("GET", "/api/v1/mounts/m")
        self.assertEqual(info["state"], "mounted")
        self.assertEqual(self.log_lines("a request of the kernel failed"), [])


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
