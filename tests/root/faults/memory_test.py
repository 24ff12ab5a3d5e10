#!/usr/bin/env python3
"""Memory of davitd under readers, with the largest chunks there are and with small files in batches."""
import os
import sys
import unittest

from faults_fixture import FaultCase, make_files

MIB = 1 << 20


class MemoryCase(FaultCase):
    def peak(self):
        """The most davitd ever had in memory of its own, in bytes."""
        with open(f"/proc/{self.daemon.process.pid}/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmHWM"].split()[0]) * 1024

    def check_peak(self, limit):
        self.start_daemon()
        point = self.mount()
        self.check_all(point, readers=8, seconds=120)
        peak = self.peak()
        self.assertLess(peak, limit)


class LargestChunksTest(MemoryCase):
    FILES = make_files(12, 20_000_000)
    CONVERT = ("--chunk-size", "16MiB")

    def test_16_mib_chunks(self):
        self.check_peak(120 * MIB)


class BatchTest(MemoryCase):
    FILES = {f"small/{n % 50}/{n}": os.urandom(900) for n in range(6000)}
    CONVERT = ("--chunk-size", "1MiB", "--batch-size", "1MiB")

    def test_small_files_in_batches(self):
        self.check_peak(60 * MIB)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: it mounts, which needs root")
        sys.exit(77)
    unittest.main()
