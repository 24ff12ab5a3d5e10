#include "daemon/core/dead_mounts.h"

#include <gtest/gtest.h>

namespace davit::daemon {
namespace {

TEST(MountInfoTest, ParsesTheKernelsTable) {
  const auto table = ParseMountInfo(
      "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
      "30 22 0:30 / /mnt/a\\040b\\134c rw,nosuid shared:5 master:2 - fuse.davit davit "
      "ro,user_id=0\n"
      "31 22 0:31 / /plain rw - tmpfs tmpfs rw\n");
  ASSERT_EQ(table.size(), 3U);
  EXPECT_EQ(table[0].type, "ext4");
  EXPECT_EQ(table[1].mountpoint, "/mnt/a b\\c");
  EXPECT_TRUE(IsDavitMount(table[1]));
  EXPECT_FALSE(IsDavitMount(table[2]));
  EXPECT_EQ(table[2].mountpoint, "/plain");
}

TEST(MountInfoTest, OddLinesAreSkipped) {
  for (const char* text : {"", "\n\n", "x", "1 2 3", "1 2 3 / /m rw", "1 2 3 / /m rw -",
                           "1 2 3 / /m\\04 rw - \\", "- - - - - - -"}) {
    for (const MountTableEntry& entry : ParseMountInfo(text)) {
      EXPECT_FALSE(IsDavitMount(entry)) << text;
    }
  }
}

TEST(DeadMountsTest, APlainDirectoryIsLeftAlone) {
  EXPECT_EQ(*DetachDavitMounts("/proc"), 0);
  EXPECT_TRUE(ClearMountpoint("/nonexistent/x").ok());
  EXPECT_TRUE(ClearMountpoint("/proc").ok());
}

}  // namespace
}  // namespace davit::daemon
