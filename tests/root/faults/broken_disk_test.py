#!/usr/bin/env python3
"""The file system below the cache has found an error, and the kernel has made it read-only. A program
of its own: where the kernel cannot be told to do so, it says that it was skipped."""
import glob
import os
import subprocess
import sys

from cache_disk_test import MIB, DiskCase
from skips import run_tests


class BrokenFileSystemTest(DiskCase):
    def test_ext4_that_has_found_an_error(self):
        """The kernel has made it read-only; after fsck all is well."""
        image = os.path.join(self.dir, "disk")
        with open(image, "wb") as handle:
            handle.truncate(64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-e", "remount-ro", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self.cache], check=True)
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            device = next(line.split(" - ")[1].split()[1] for line in table if line.split()[4] == self.cache)
        trigger = f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error"
        if not glob.glob(trigger):
            self.skipTest("this kernel has no trigger_fs_error")
        self.start_daemon()
        point = self.mount()
        self.check_file(point, "data/0")
        self.daemon.call("POST", "/api/v1/cache/evict", {"bytes": 0})
        with open(trigger, "w", encoding="utf-8") as handle:
            handle.write("test of davit")
        self.drop_page_cache(point)
        came = self.read_any(point)
        self.assertIn("data/0", came)
        self.assertLess(len(came), len(self.FILES))
        self.assertIn("Read-only file system", self.log_lines("a request of the kernel failed")[0])
        self.check_alive()
        self.daemon.stop()
        subprocess.run(["umount", self.cache], check=True)
        self.assertLessEqual(subprocess.run(["fsck.ext4", "-p", "-f", image], stdout=subprocess.DEVNULL, check=False).returncode, 1)
        subprocess.run(["mount", "-o", "loop", image, self.cache], check=True)
        self.daemon.start()
        self.check_all(point)
        self.daemon.stop()
        subprocess.run(["umount", self.cache], check=True)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    run_tests()
