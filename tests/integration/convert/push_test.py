#!/usr/bin/env python3
"""What `davit convert` sends, and how much of it at the same time, by the count of the registry that it is sent to."""
import json
import os
import random
import shutil
import tempfile
import unittest

from faults_fixture import FakeRegistry
from images import Layout, davit, entry, make_tar

LAYERS = 8


def layer(number):
    return make_tar([entry(f"file-{number}", random.Random(number).randbytes(50_000))])


class PushTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="davit-push-test-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.source = Layout(os.path.join(self.dir, "source"))
        self.source.tag(self.source.image([layer(n) for n in range(LAYERS)]), "x")
        self.source.tag(self.source.image([layer(n) for n in range(LAYERS + 1)]), "one-more")
        self.empty = Layout(os.path.join(self.dir, "empty"))
        with open(os.path.join(self.empty.path, "index.json"), "w", encoding="utf-8") as file:
            file.write('{"schemaVersion":2,"manifests":[]}')

    def registry(self, *options):
        registry = FakeRegistry(self.empty.path, *options)
        self.addCleanup(registry.stop)
        return registry

    def convert(self, registry, tag, *flags):
        return json.loads(davit("convert", f"oci:{self.source.path}:{tag}", f"{registry.host}/team/app:{tag}", "--plain-http", "--output", "json", *flags).stdout)

    @staticmethod
    def sent(registry):
        """Digests of the blobs whose bytes were sent."""
        requests = registry.requests("/team/app/blobs/uploads/")
        assert not [one for one in requests if one["method"] == "PATCH"], "the blobs are small"
        return [one["query"].partition("digest=")[2].replace("%3A", ":") for one in requests if one["method"] == "PUT"]

    def test_as_many_at_once_as_allowed(self):
        for transfers in (1, 2, 4):
            with self.subTest(transfers=transfers):
                # The registry holds the first ones until so many are there, and then looks for one more.
                registry = self.registry("--hold-uploads", str(transfers))
                self.convert(registry, "x", "--transfers", str(transfers))
                self.assertEqual(registry.most_uploads(), transfers)
                self.assertEqual(len(self.sent(registry)), LAYERS + 2)
                davit("check", f"{registry.host}/team/app:x", "--plain-http", "--source", f"oci:{self.source.path}:x")

    def test_three_at_once_when_nothing_is_said(self):
        registry = self.registry("--hold-uploads", "3")
        self.convert(registry, "x")
        self.assertEqual(registry.most_uploads(), 3)

    def test_what_the_registry_has_is_not_sent(self):
        registry = self.registry()
        first = self.convert(registry, "x")
        before = self.sent(registry)
        self.assertEqual(len(before), len(set(before)), "a blob was sent twice")
        registry.forget_requests()
        again = self.convert(registry, "x")
        self.assertEqual(again["digest"], first["digest"])
        self.assertEqual(again["pushed_bytes"], 0)
        self.assertEqual(registry.requests("/blobs/uploads/"), [])
        # One more layer on top: its blob, the new bootstrap and the new config.
        more = self.convert(registry, "one-more")
        sent = self.sent(registry)
        self.assertEqual(len(sent), 3, sent)
        self.assertFalse(set(sent) & set(before))
        self.assertGreater(more["pushed_bytes"], 0)
        self.assertLess(more["pushed_bytes"], first["pushed_bytes"] / 2)


if __name__ == "__main__":
    unittest.main()
