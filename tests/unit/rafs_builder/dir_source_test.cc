#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>

#include "tests/unit/rafs_builder/builder_fixture.h"

namespace davit::testing {
namespace {

class DirSourceTest : public BuilderTest {
 protected:
  void SetUp() override {
    BuilderTest::SetUp();
    root_ = MakeDir("source");
  }
  void Write(const std::string& name, const std::string& data) {
    ASSERT_OK(WriteFileAtomic(root_ + "/" + name, AsBytes(data), 0644));
  }
  Result<Content> Image() {
    DAVIT_TRY_ASSIGN(const rafs::Tree tree, BuildDir(root_));
    return Read(tree);
  }
  std::string root_;
};

TEST_F(DirSourceTest, KeepsWhatTheFileSystemHas) {
  MakeDir("source/sub/deep");
  Write("sub/deep/file", PatternData(1, 2'000'001));
  Write("!odd", "1");
  Write("\xff\xfe", "2");
  ASSERT_EQ(::link((root_ + "/!odd").c_str(), (root_ + "/sub/linked").c_str()), 0);
  ASSERT_EQ(::symlink("/abs/target", (root_ + "/sym").c_str()), 0);
  ASSERT_EQ(::mkfifo((root_ + "/pipe").c_str(), 0640), 0);
  ASSERT_EQ(::chmod((root_ + "/!odd").c_str(), 04750), 0);
  const timespec times[2] = {{0, 0}, {-100, 250}};
  ASSERT_EQ(::utimensat(AT_FDCWD, (root_ + "/sym").c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
  const int sock = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s/sock", root_.c_str());
  ASSERT_EQ(::bind(sock, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::close(sock);
  const bool xattrs = ::setxattr((root_ + "/sub").c_str(), "user.k", "v\0w", 3, 0) == 0;

  const auto image = Image();
  ASSERT_OK(image);
  EXPECT_EQ(image->size(), 10U);
  EXPECT_TRUE(image->at("sub/deep/file").content == PatternData(1, 2'000'001));
  EXPECT_EQ(image->at("\xff\xfe").content, "2");
  EXPECT_EQ(image->at("!odd").id, image->at("sub/linked").id);
  EXPECT_EQ(image->at("!odd").mode, S_IFREG | 04750U);
  EXPECT_EQ(image->at("!odd").nlink, 2U);
  EXPECT_EQ(image->at("sym").target, "/abs/target");
  EXPECT_EQ(image->at("sym").mtime, -100);
  EXPECT_EQ(image->at("sym").mtime_nsec, 250U);
  EXPECT_EQ(image->at("pipe").mode, S_IFIFO | 0640U);
  EXPECT_TRUE(S_ISSOCK(image->at("sock").mode));
  EXPECT_EQ(image->at("sub").uid, ::geteuid());
  if (xattrs) {
    EXPECT_EQ(image->at("sub").xattrs.at("user.k"), std::string("v\0w", 3));
  }
}

TEST_F(DirSourceTest, HolesAreNotRead) {
  const int fd = ::open((root_ + "/sparse").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  ASSERT_GE(fd, 0);
  const std::string data = PatternData(3, 5000);
  ASSERT_OK(PwriteFull(fd, AsBytes(data), 7'000'000));
  ASSERT_EQ(::ftruncate(fd, 20'000'000), 0);
  ::close(fd);
  const auto image = Image();
  ASSERT_OK(image);
  std::string want(20'000'000, '\0');
  want.replace(7'000'000, data.size(), data);
  EXPECT_TRUE(image->at("sparse").content == want);
  EXPECT_LE(blobs_.blobs.at(0).chunks.size(), 3U) << "zeros are stored once";
}

// Data of prefetch files comes first, in the order of the list.
TEST_F(DirSourceTest, PrefetchFilesComeFirst) {
  MakeDir("source/z");
  MakeDir("source/y");
  for (const char* name : {"a", "b", "y/1", "y/2", "z/last"}) Write(name, name);
  options_.prefetch = {"/z/last", "/y", "/nothing"};
  ASSERT_OK(Image());
  std::vector<std::string> order;
  for (const rafs::StoredChunk& chunk : blobs_.blobs.at(0).chunks) {
    for (const char* name : {"a", "b", "y/1", "y/2", "z/last"}) {
      if (Digest::Of(options_.digester, AsBytes(name)) == chunk.digest) order.emplace_back(name);
    }
  }
  EXPECT_EQ(order, (std::vector<std::string>{"z/last", "y/1", "y/2", "a", "b"}));
}

TEST_F(DirSourceTest, ErrorsNameThePath) {
  const auto missing = BuildDir(root_ + "/not-there");
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message().find("not-there"), std::string::npos);
  Write("f", "x");
  const auto file = BuildDir(root_ + "/f");
  EXPECT_FALSE(file.ok());
  const auto no_work =
      rafs::BuildDirectory({}, root_, options_, "/nonexistent/work", blobs_, nullptr);
  ASSERT_FALSE(no_work.ok());
  EXPECT_NE(no_work.error().message().find("/nonexistent/work"), std::string::npos);
}

// The same content gives the same bytes from a directory and however it is laid out on disk.
TEST_F(DirSourceTest, EqualDirectoriesGiveEqualBytes) {
  MakeDir("source/d");
  for (const char* name : {"c", "a", "b", "d/x"})
    Write(name, PatternData(static_cast<unsigned char>(name[0]), 10000));
  ASSERT_OK(Image());
  const std::string first = bootstrap_.bytes, id = blobs_.blobs.at(0).id.value;
  blobs_ = {};
  options_.threads = 3;
  ASSERT_OK(Image());
  EXPECT_TRUE(bootstrap_.bytes == first);
  EXPECT_EQ(blobs_.blobs.at(0).id.value, id);
}

}  // namespace
}  // namespace davit::testing
