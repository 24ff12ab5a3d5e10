#include "tests/root/fuse/fuse_mount_fixture.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace davit::testing {

std::size_t OpenDescriptors() { return ListDirectory("/proc/self/fd")->size(); }

std::size_t Mounts() {
  const std::string table = ReadFile("/proc/self/mountinfo").value();
  return static_cast<std::size_t>(std::ranges::count(table, '\n'));
}

std::string Slurp(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return "errno " + std::to_string(errno);
  std::string out;
  char buffer[65536];
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof(buffer));
    if (got < 0) return "errno " + std::to_string(errno);
    if (got == 0) return out;
    out.append(buffer, static_cast<std::size_t>(got));
  }
}

std::string Pattern(std::size_t size, unsigned seed) {
  std::string out(size, '\0');
  std::uint64_t x = seed * 0x9E3779B97F4A7C15ULL + 1;
  for (char& c : out) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    c = static_cast<char>(x);
  }
  return out;
}

void FuseMountTest::SetUpTestSuite() {
  static const bool separate = [] {
    return ::unshare(CLONE_NEWNS) == 0 &&
           ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  }();
  ASSERT_TRUE(separate) << "needs root";
}

void FuseMountTest::SetUp() {
  descriptors_ = OpenDescriptors();
  mounts_ = Mounts();
  auto directory = TempDir::Create("davit-fuse-test");
  ASSERT_TRUE(directory.ok()) << directory.error().ToString();
  directory_ = std::make_unique<TempDir>(*std::move(directory));
}

void FuseMountTest::TearDown() {
  session_.reset();
  filesystem_.reset();
  image_.UseBlob(nullptr);
  directory_.reset();
  EXPECT_EQ(OpenDescriptors(), descriptors_);
  EXPECT_EQ(Mounts(), mounts_);
}

void FuseMountTest::Mount() {
  options_.mountpoint = directory_->path();
  filesystem_ = image_.TakeFilesystem();
  auto session = rafs::FuseSession::Start(filesystem_, options_);
  ASSERT_TRUE(session.ok()) << session.error().ToString();
  session_ = *std::move(session);
}

std::string FuseMountTest::Path(const std::string& relative) const {
  return relative.empty() ? directory_->path() : directory_->path() + "/" + relative;
}

}  // namespace davit::testing
