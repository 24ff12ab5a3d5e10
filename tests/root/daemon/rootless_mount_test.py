#!/usr/bin/env python3
"""`davit mount` as an ordinary user: davitd of the user's own, mounts by fusermount3.

Runs in a mount namespace of its own, where everybody may open /dev/fuse.
"""
import json
import os
import signal
import subprocess
import sys
import unittest

from daemon_fixture import DAVIT, is_mounted, make_rafs, wait_for, workspace

USER = 65534
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
FILES = {"etc/hello": b"hello\n", "etc/empty": b"", "data/big": os.urandom(3_000_000), "bin/tool": b"#!/bin/sh\necho ran\n"}


def as_user(*words, ok=True, env=None):
    result = subprocess.run([*AS_USER, *words], capture_output=True, env=env, check=False)
    if ok and result.returncode != 0:
        raise AssertionError(f"{words}: exit {result.returncode}\n{result.stderr.decode()}")
    return result


class RootlessMountTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.space = workspace()
        cls.shared = cls.space.__enter__()
        cls.addClassCleanup(cls.space.__exit__, None, None, None)
        os.chmod(cls.shared, 0o755)
        device = os.path.join(cls.shared, "fuse")
        os.mknod(device, 0o600 | 0o020000, os.makedev(10, 229))
        os.chmod(device, 0o666)
        subprocess.run(["mount", "--bind", device, "/dev/fuse"], check=True)
        cls.addClassCleanup(subprocess.run, ["umount", "/dev/fuse"], check=True)
        cls.image = f"oci:{cls.shared}/layout:v1"
        make_rafs(cls.shared, FILES, cls.image)
        subprocess.run(["chmod", "-R", "a+rX", os.path.join(cls.shared, "layout")], check=True)

    def setUp(self):
        context = workspace()
        self.dir = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        self.point = os.path.join(self.dir, "mnt")
        os.makedirs(self.point)
        for path in (self.dir, self.point):
            os.chown(path, USER, USER)
        self.env = {"PATH": os.environ["PATH"], "HOME": self.dir, "XDG_RUNTIME_DIR": self.dir + "/run", "XDG_STATE_HOME": self.dir + "/state",
                    "XDG_CACHE_HOME": self.dir + "/cache"}
        os.makedirs(self.dir + "/run", 0o700)
        os.chown(self.dir + "/run", USER, USER)
        self.addCleanup(self.stop_daemon)

    def davit(self, *words, ok=True):
        return as_user(DAVIT, *words, ok=ok, env=self.env)

    def stop_daemon(self):
        """Ends the user's daemon, if there is one."""
        info = self.davit("info", "--output", "json", ok=False)
        if info.returncode != 0:
            return
        pid = json.loads(info.stdout)["pid"]
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 20, "the end of davitd")

    def check_content(self):
        for name, data in FILES.items():
            self.assertEqual(as_user("cat", os.path.join(self.point, name)).stdout, data, name)

    def test_mount_read_unmount(self):
        info = json.loads(self.davit("mount", self.image, self.point, "--output", "json").stdout)
        self.assertEqual(info["data_path"], "fuse")
        self.assertTrue(is_mounted(self.point))
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            (line,) = [line for line in table if line.split()[4] == self.point]
        self.assertIn(f"user_id={USER}", line)
        self.assertRegex(line, r"\bro\b.*\bnosuid\b.*\bnodev\b|\bnosuid\b.*\bnodev\b")
        self.check_content()
        daemon = json.loads(self.davit("info", "--output", "json").stdout)
        self.assertEqual(os.stat(f"/proc/{daemon['pid']}").st_uid, USER)
        self.assertIn(self.point.encode(), self.davit("ps").stdout)
        # Nobody else sees the user's files, by fuse's own rule.
        other = subprocess.run(["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "cat", self.point + "/etc/hello"], capture_output=True,
                               check=False)
        self.assertNotEqual(other.returncode, 0)
        self.davit("umount", self.point)
        self.assertFalse(is_mounted(self.point))

    def test_all_of_the_state_is_the_users(self):
        self.davit("mount", self.image, self.point)
        self.check_content()
        for base, folders, files in os.walk(self.dir):
            folders[:] = [name for name in folders if os.path.join(base, name) != self.point]
            for name in folders + files:
                self.assertEqual(os.lstat(os.path.join(base, name)).st_uid, USER, os.path.join(base, name))
        self.davit("umount", self.point)

    def test_a_restart_brings_the_mount_back(self):
        self.davit("mount", self.image, self.point)
        pid = json.loads(self.davit("info", "--output", "json").stdout)["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 20, "the end of davitd")
        self.assertTrue(is_mounted(self.point))  # dead
        self.davit("mount", self.image, self.point)
        self.check_content()
        self.davit("umount", self.point)
        self.assertFalse(is_mounted(self.point))

    def test_foreground(self):
        process = subprocess.Popen([*AS_USER, DAVIT, "mount", self.image, self.point, "--foreground"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, env=self.env)
        try:
            self.assertIn("is mounted at", process.stdout.readline())
            self.check_content()
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(20), 0)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
        self.assertFalse(is_mounted(self.point))

    def test_busy_and_force(self):
        self.davit("mount", self.image, self.point)
        holder = subprocess.Popen([*AS_USER, "sh", "-c", f"exec 3<{self.point}/etc/hello; echo open; exec sleep 100"], stdout=subprocess.PIPE)
        try:
            self.assertEqual(holder.stdout.readline(), b"open\n")
            refused = self.davit("umount", self.point, ok=False)
            self.assertEqual(refused.returncode, 1)
            self.assertTrue(is_mounted(self.point))
            self.davit("umount", "--force", self.point)
            self.assertFalse(is_mounted(self.point))
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()

    def test_a_directory_of_somebody_else_is_refused(self):
        os.chown(self.point, 0, 0)
        os.chmod(self.point, 0o755)
        refused = self.davit("mount", self.image, self.point, ok=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn(self.point.encode(), refused.stderr)
        self.assertFalse(is_mounted(self.point))


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    if os.readlink("/proc/self/ns/mnt") == os.readlink(f"/proc/{os.getppid()}/ns/mnt"):
        os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv])
    unittest.main()
