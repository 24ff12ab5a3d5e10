// How mounts begin and end.

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "rafs/fuse/mount_point.h"
#include "tests/root/fuse/fuse_mount_fixture.h"

namespace davit::testing {
namespace {

using std::chrono::milliseconds;

std::size_t Threads() { return ListDirectory("/proc/self/task")->size(); }

bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

class FuseLifecycleTest : public FuseMountTest {
 protected:
  void SetUp() override {
    FuseMountTest::SetUp();
    threads_ = Threads();
    image_.File("file", Pattern(100'000, 1));
  }
  void TearDown() override {
    FuseMountTest::TearDown();
    EXPECT_TRUE(Eventually([this] { return Threads() <= threads_; }));
  }
  std::size_t threads_ = 0;
};

TEST_F(FuseLifecycleTest, UnmountEndsTheSession) {
  Mount();
  ASSERT_TRUE(session().alive());
  const Status done = session().Unmount(false);
  ASSERT_TRUE(done.ok()) << done.error().ToString();
  EXPECT_FALSE(session().alive());
  EXPECT_EQ(Slurp(Path("file")), "errno 2");
  EXPECT_TRUE(session().Unmount(false).ok()) << "again: nothing to do";
}

TEST_F(FuseLifecycleTest, ABusyMountIsLeftAlone) {
  Mount();
  UniqueFd open(::open(Path("file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(open);
  const Status refused = session().Unmount(false);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), Code::kFailedPrecondition);
  EXPECT_EQ(refused.error().sys_errno(), EBUSY);
  EXPECT_FALSE(refused.error().hint().empty());
  EXPECT_TRUE(session().alive());
  EXPECT_EQ(Slurp(Path("file")), Pattern(100'000, 1));
  open.reset();
  EXPECT_TRUE(session().Unmount(false).ok());
}

TEST_F(FuseLifecycleTest, ALazyUnmountServesOpenFiles) {
  Mount();
  UniqueFd open(::open(Path("file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(open);
  ASSERT_TRUE(session().Unmount(true).ok());
  EXPECT_FALSE(session().alive());
  EXPECT_EQ(Slurp(Path("file")), "errno 2");
  std::string buffer(100'000, '\0');
  EXPECT_EQ(::read(open.get(), buffer.data(), buffer.size()), 100'000);
  EXPECT_EQ(buffer, Pattern(100'000, 1));
}

TEST_F(FuseLifecycleTest, TheEndOfALazilyUnmountedSessionDoesNotWaitForItsUsers) {
  Mount();
  UniqueFd open(::open(Path("file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(open);
  ASSERT_TRUE(session().Unmount(true).ok());
  const TimePoint start = std::chrono::steady_clock::now();
  session_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(4));
  char byte = 0;
  EXPECT_EQ(::read(open.get(), &byte, 1), -1);
  EXPECT_EQ(errno, ENOTCONN);
}

TEST_F(FuseLifecycleTest, TheEndOfABusySessionDoesNotHang) {
  Mount();
  image_.blob().Withhold();
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i) readers.emplace_back([this] { Slurp(Path("file")); });
  ASSERT_TRUE(image_.blob().AwaitWaiting(1));
  UniqueFd open(::open(Path("file").c_str(), O_RDONLY | O_CLOEXEC));
  const TimePoint start = std::chrono::steady_clock::now();
  session_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(4));
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(Slurp(Path("file")), "errno 2");
}

TEST_F(FuseLifecycleTest, SomebodyElseUnmounts) {
  Mount();
  ASSERT_EQ(::umount2(Path().c_str(), 0), 0);
  EXPECT_TRUE(Eventually([this] { return !session().alive(); }));
  EXPECT_TRUE(session().Unmount(false).ok());
}

TEST_F(FuseLifecycleTest, SomebodyElseDetaches) {
  Mount();
  const UniqueFd open(::open(Path("file").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::umount2(Path().c_str(), MNT_DETACH), 0);
  EXPECT_FALSE(session().alive()) << "still served, but no longer there";
}

TEST_F(FuseLifecycleTest, AnAbortedConnectionIsNoticed) {
  Mount();
  const auto mount = rafs::IdentifyMount(Path());
  ASSERT_TRUE(mount.ok());
  const Status aborted = rafs::AbortConnection(*mount);
  ASSERT_TRUE(aborted.ok()) << aborted.error().ToString();
  EXPECT_TRUE(Eventually([this] { return !session().alive(); }));
  EXPECT_EQ(Slurp(Path("file")), "errno " + std::to_string(ENOTCONN));
  // A new mount says what is in the way; the end of the session removes it.
  auto second = rafs::FuseSession::Start(filesystem_, options_);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().hint().find("umount -l"), std::string::npos);
}

TEST_F(FuseLifecycleTest, TheEndTakesOnlyItsOwnMountAway) {
  Mount();
  ASSERT_EQ(::mount("none", Path().c_str(), "tmpfs", 0, nullptr), 0);
  EXPECT_TRUE(session().alive());
  const Status refused = session().Unmount(false);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().sys_errno(), EBUSY);
  ASSERT_EQ(::umount2(Path().c_str(), 0), 0);
  EXPECT_TRUE(session().Unmount(false).ok());
}

TEST_F(FuseLifecycleTest, BadMountPointsAreExplained) {
  options_.mountpoint = "/nonexistent/davit";
  auto missing = rafs::FuseSession::Start(image_.TakeFilesystem(), options_);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code(), Code::kNotFound);
  EXPECT_NE(missing.error().message().find("/nonexistent/davit"), std::string::npos);
  FakeImage other;
  options_.mountpoint = "/etc/passwd";
  auto file = rafs::FuseSession::Start(other.TakeFilesystem(), options_);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code(), Code::kInvalidArgument);
}

TEST_F(FuseLifecycleTest, ReadAheadIsRaised) {
  Mount();
  const auto mount = rafs::IdentifyMount(Path());
  ASSERT_TRUE(mount.ok());
  const std::string file = "/sys/class/bdi/" + std::to_string(mount->major) + ":" +
                           std::to_string(mount->minor) + "/read_ahead_kb";
  EXPECT_EQ(ReadFile(file).value(), std::to_string(options_.read_ahead_bytes / 1024) + "\n");
}

TEST_F(FuseLifecycleTest, ThreadsComeAndGo) {
  for (int i = 0; i < 40; ++i) image_.File("f" + std::to_string(i), "x");
  options_.threads = 2;
  Mount();
  image_.blob().Withhold();
  std::vector<std::thread> readers;
  for (int i = 0; i < 40; ++i) {
    readers.emplace_back([this, i] { EXPECT_EQ(Slurp(Path("f" + std::to_string(i))), "x"); });
  }
  ASSERT_TRUE(image_.blob().AwaitWaiting(40));
  image_.blob().Release();
  for (std::thread& reader : readers) reader.join();
  // Parked threads end after ten seconds; the receiving ones stay.
  const TimePoint until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (Threads() > threads_ + 3 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(milliseconds(100));
  }
  EXPECT_LE(Threads(), threads_ + 3);
}

// Private and shared memory of this process in kB, shared pages divided among their users.
long Pss() {
  const std::string text = ReadFile("/proc/self/smaps_rollup").value();
  return std::strtol(text.c_str() + text.find("Pss:") + 4, nullptr, 10);
}

TEST_F(FuseLifecycleTest, ARestingSessionIsSmall) {
  constexpr int kSessions = 30;
  options_.buffers = std::make_shared<rafs::ReadBuffers>();
  Mount();
  EXPECT_EQ(Slurp(Path("file")), Pattern(100'000, 1));
  struct One {
    std::unique_ptr<TempDir> directory;
    std::unique_ptr<rafs::FuseSession> session;
  };
  std::vector<One> all;
  const long before = Pss();
  for (int i = 0; i < kSessions; ++i) {
    One one;
    one.directory = std::make_unique<TempDir>(*TempDir::Create("davit-fuse-many"));
    auto options = options_;
    options.mountpoint = one.directory->path();
    auto session = rafs::FuseSession::Start(filesystem_, options);
    ASSERT_TRUE(session.ok()) << session.error().ToString();
    one.session = *std::move(session);
    EXPECT_EQ(Slurp(one.directory->path() + "/file"), Pattern(100'000, 1));
    struct stat st{};
    EXPECT_EQ(::stat((one.directory->path() + "/none").c_str(), &st), -1);
    all.push_back(std::move(one));
  }
  const long each = (Pss() - before) / kSessions;
  RecordProperty("pss_kb_per_session", static_cast<int>(each));
  std::printf("PSS of a resting session: %ld kB\n", each);
#ifndef DAVIT_SANITIZED  // whose shadow memory counts too
  EXPECT_LE(each, 300);
#endif
  for (One& one : all) {
    one.session.reset();
    one.directory.reset();
  }
}

}  // namespace
}  // namespace davit::testing
