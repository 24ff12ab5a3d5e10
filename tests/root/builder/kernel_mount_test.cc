// The kernel's EROFS driver mounts what the builder writes and shows the same tree. Loop devices
// and mounts live in a mount namespace of this test and go away with it.

#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tests/unit/rafs_builder/builder_fixture.h"

namespace davit::testing {
namespace {

// A read-only loop device that the kernel detaches with its last user.
class Loop {
 public:
  static Result<Loop> Attach(const std::string& file) {
    DAVIT_TRY_ASSIGN(const UniqueFd control, OpenFile("/dev/loop-control", O_RDWR));
    DAVIT_TRY_ASSIGN(const UniqueFd backing, OpenFile(file, O_RDONLY));
    for (int tries = 0; tries < 50; ++tries) {
      const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
      if (number < 0) return Error::FromErrno(errno, "find a free loop device");
      const std::string path = "/dev/loop" + std::to_string(number);
      DAVIT_TRY_ASSIGN(UniqueFd device, OpenFile(path, O_RDONLY));
      loop_config config{};
      config.fd = static_cast<__u32>(backing.get());
      config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
      if (::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) return Loop(path, std::move(device));
      if (errno != EBUSY) return Error::FromErrno(errno, "attach " + file);
    }
    return Error(Code::kAborted, "others take every free loop device");
  }
  const std::string& path() const { return path_; }

 private:
  Loop(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::string path_;
  UniqueFd fd_;
};

class KernelMountTest : public BuilderTest {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    BuilderTest::SetUp();
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      GTEST_SKIP() << "no mount namespace: " << std::strerror(errno);
    }
  }
  void TearDown() override {
    if (mounted_) {
      EXPECT_EQ(::umount2(target_.c_str(), 0), 0);
    }
  }

  Status Mount() {
    const auto owner = std::make_shared<std::string>(bootstrap_.bytes);
    DAVIT_TRY_ASSIGN(const auto metadata, rafs::Metadata::Open(AsBytes(*owner), owner));
    std::string options;
    for (std::uint32_t b = 0; b < metadata->blobs().size(); ++b) {
      const std::string path = blobs_.blobs[bootstrap_.used_blobs[b]].path;
      DAVIT_TRY_ASSIGN(const std::string data, UncompressedBlob(*metadata, b, path));
      const std::string file = dir_->path() + "/device" + std::to_string(b);
      DAVIT_TRY(WriteFileAtomic(file, AsBytes(data)));
      DAVIT_TRY_ASSIGN(Loop loop, Loop::Attach(file));
      options += (options.empty() ? "device=" : ",device=") + loop.path();
      loops_.push_back(std::move(loop));
    }
    const std::string boot = dir_->path() + "/boot";
    DAVIT_TRY(WriteFileAtomic(boot, AsBytes(bootstrap_.bytes)));
    DAVIT_TRY_ASSIGN(Loop loop, Loop::Attach(boot));
    target_ = MakeDir("mnt");
    if (::mount(loop.path().c_str(), target_.c_str(), "erofs", MS_RDONLY, options.c_str()) != 0) {
      return Error::FromErrno(errno, "mount");
    }
    loops_.push_back(std::move(loop));
    mounted_ = true;
    return {};
  }

  void ExpectSameAsMounted(const Content& image) {
    std::size_t found = 1;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(target_)) {
      ++found;
      EXPECT_TRUE(image.contains(entry.path().lexically_relative(target_).string()))
          << entry.path();
    }
    EXPECT_EQ(found, image.size());
    for (const auto& [path, node] : image) {
      SCOPED_TRACE(path);
      const std::string file = target_ + "/" + path;
      struct stat st;
      ASSERT_EQ(::lstat(file.c_str(), &st), 0) << std::strerror(errno);
      EXPECT_EQ(st.st_mode, node.mode);
      EXPECT_EQ(st.st_uid, node.uid);
      EXPECT_EQ(st.st_gid, node.gid);
      EXPECT_EQ(st.st_nlink, node.nlink);
      EXPECT_EQ(st.st_mtim.tv_sec, node.mtime);
      EXPECT_EQ(static_cast<std::uint32_t>(st.st_mtim.tv_nsec), node.mtime_nsec);
      EXPECT_EQ(st.st_ino, node.id);
      if (S_ISCHR(node.mode) || S_ISBLK(node.mode)) {
        EXPECT_EQ(st.st_rdev, node.rdev);
      }
      if (S_ISLNK(node.mode)) {
        EXPECT_EQ(std::filesystem::read_symlink(file).string(), node.target);
      }
      if (S_ISREG(node.mode)) {
        const auto content = ReadFile(file, 1ULL << 30);
        ASSERT_OK(content);
        EXPECT_TRUE(*content == node.content);
      }
      for (const auto& [name, value] : node.xattrs) {
        std::string got(value.size() + 1, '\0');
        const ssize_t n = ::lgetxattr(file.c_str(), name.c_str(), got.data(), got.size());
        ASSERT_EQ(n, static_cast<ssize_t>(value.size())) << name << ": " << std::strerror(errno);
        got.resize(value.size());
        EXPECT_EQ(got, value) << name;
      }
    }
  }

  std::string target_;
  bool mounted_ = false;
  std::vector<Loop> loops_;
};

TarWriter OddTree() {
  TarWriter tar;
  tar.Dir("./", 01777);
  for (const std::size_t size :
       std::initializer_list<std::size_t>{0, 1, 4095, 4096, 4097, 65536, 1'048'577, 3'333'333}) {
    tar.File("sizes/" + std::to_string(size), PatternData(size, size));
  }
  for (const char* name : {" ", "!x", "#", "%", "+", ",", "-a", "...", "\xff\xfe", "\x01"}) {
    tar.File(std::string("odd/") + name, name);
  }
  tar.Add({.name = "odd/" + std::string(255, 'n'), .data = "255", .gnu_long = true});
  for (int i = 0; i < 700; ++i) {
    tar.Add({.name = "many/" + std::string(120, 'e') + std::to_string(i), .gnu_long = true});
  }
  for (const std::size_t size : std::initializer_list<std::size_t>{1, 3000, 4032, 4033, 4095}) {
    tar.Add({.name = "links/" + std::to_string(size),
             .type = '2',
             .link = std::string(size, 't'),
             .gnu_long = true});
  }
  tar.HardLink("hard", "sizes/4097").HardLink("many/hard2", "sizes/4097");
  tar.Add({.name = "dev", .type = '3', .mode = 0666, .major = 259, .minor = 70000});
  tar.Add({.name = "pipe", .type = '6', .mode = 0640});
  tar.Add({.name = "owner", .data = "o", .mode = 04755, .uid = 100'000, .gid = 4'000'000'000});
  tar.Add({.name = "time", .data = "t", .pax = {{"mtime", "1700000000.123456789"}}});
  tar.Add({.name = "old", .data = "t", .pax = {{"mtime", "-1.5"}}});
  tar.Add({.name = "xattr",
           .data = "x",
           .pax = {{"SCHILY.xattr.user.k", std::string("v\0\n=", 4)},
                   {"SCHILY.xattr.trusted.t", "1"},
                   {"SCHILY.xattr.user.big", PatternData(9, 20'000)},
                   {"SCHILY.xattr.security.capability",
                    std::string("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00"
                                "\x00\x00\x00\x00\x00\x00\x00\x00",
                                20)}}});
  return tar;
}

TEST_F(KernelMountTest, ShowsTheTreeOfTwoLayers) {
  options_.inline_bootstrap = true;
  auto tree = Build(OddTree().Finish(), 0);
  ASSERT_OK(tree);
  TarWriter upper;
  upper.File("new/file", PatternData(4, 500'000)).File("sizes/.wh.1", "").HardLink("late", "owner");
  auto second = Build(upper.Finish(), 1);
  ASSERT_OK(second);
  ASSERT_OK(rafs::ApplyLayer(*tree, *std::move(second)));
  const auto image = Read(*tree);
  ASSERT_OK(image);
  ASSERT_OK(Mount());
  ExpectSameAsMounted(*image);
}

TEST_F(KernelMountTest, SmallChunksAndBatches) {
  options_.chunk_size = 4096;
  options_.batch_size = 4096;
  options_.compressor = codec::Algorithm::kLz4Block;
  const auto image = RoundTrip(OddTree().Finish());
  ASSERT_OK(image);
  ASSERT_OK(Mount());
  ExpectSameAsMounted(*image);
}

TEST_F(KernelMountTest, ImageWithoutData) {
  const auto image = RoundTrip(TarWriter().Dir("d").Symlink("l", "d").Finish());
  ASSERT_OK(image);
  ASSERT_OK(Mount());
  ExpectSameAsMounted(*image);
}

}  // namespace
}  // namespace davit::testing
