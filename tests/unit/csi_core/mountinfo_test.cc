#include <gtest/gtest.h>

#include "csi/core/mounter.h"

namespace davit::csi {
namespace {

TEST(MountInfo, ReadsLinesWithAndWithoutOptionalFields) {
  const auto mounts = ParseMountInfo(
      "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
      "40 22 0:45 / /var/lib/a\\040b ro,nosuid,nodev shared:3 master:1 - fuse.davit davit ro\n"
      "41 22 0:46 /sub /x rw - tmpfs tmp\\134fs rw");
  ASSERT_EQ(mounts.size(), 3U);
  EXPECT_EQ(mounts[0].path, "/");
  EXPECT_EQ(mounts[0].device, (8ULL << 32) | 1);
  EXPECT_EQ(mounts[1].path, "/var/lib/a b");
  EXPECT_EQ(mounts[1].fs_type, "fuse.davit");
  EXPECT_EQ(mounts[1].source, "davit");
  EXPECT_EQ(mounts[1].options, "ro,nosuid,nodev");
  EXPECT_EQ(mounts[2].source, "tmp\\fs");
}

TEST(MountInfo, LeavesOutWhatItDoesNotUnderstand) {
  for (const char* bad :
       {"", "\n\n", "x", "1 2 3", "1 2 a:b / /p rw - t s", "1 2 3: / /p rw - t s",
        "1 2 0:99999999999 / /p rw - t s", "1 2 0:1 / /p rw", "1 2 0:1 / relative rw - t s",
        "1 2 0:1 / /p rw shared:1 x y z", "1 2 0:1 / /p rw -"}) {
    EXPECT_TRUE(ParseMountInfo(bad).empty()) << bad;
  }
  // A truncated escape is text.
  EXPECT_EQ(ParseMountInfo("1 2 0:1 / /p\\04 rw - t s").at(0).path, "/p\\04");
}

TEST(MountInfo, TheLastMountOnAPathIsOnTop) {
  const auto mounts =
      ParseMountInfo("1 0 0:1 / /p rw - t a x\n2 1 0:2 / /p rw - t b x\n3 1 0:3 / /q rw - t c x\n");
  ASSERT_NE(FindMount(mounts, "/p"), nullptr);
  EXPECT_EQ(FindMount(mounts, "/p")->source, "b");
  EXPECT_EQ(FindMount(mounts, "/p/q"), nullptr);
}

}  // namespace
}  // namespace davit::csi
