// What programs see of a mounted image.

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include "tests/root/fuse/fuse_mount_fixture.h"

namespace davit::testing {
namespace {

class FuseReadTest : public FuseMountTest {};

TEST_F(FuseReadTest, FilesHaveTheirContent) {
  const std::string big = Pattern((5U << 20) + 123, 1);
  image_.File("hello", "hello world\n");
  image_.File("empty", "");
  image_.File("dir/big", big);
  Mount();
  EXPECT_EQ(Slurp(Path("hello")), "hello world\n");
  EXPECT_EQ(Slurp(Path("empty")), "");
  EXPECT_EQ(Slurp(Path("dir/big")), big);
  EXPECT_TRUE(session().alive());
}

}  // namespace
}  // namespace davit::testing
