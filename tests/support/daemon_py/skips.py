"""How a program whose tests could not run says so."""
import sys
import unittest

SKIPPED = 77  # SKIP_RETURN_CODE in CMake


def run_tests():
    """unittest.main(), which ends with 0 also when nothing ran; this ends with 77 then."""
    result = unittest.main(exit=False).result
    if not result.wasSuccessful():
        sys.exit(1)
    # A class that skips in setUpClass counts as skipped, and none of its tests as run.
    if result.skipped and len(result.skipped) >= result.testsRun:
        print("SKIPPED: " + "; ".join(sorted({reason for _, reason in result.skipped})))
        sys.exit(SKIPPED)
