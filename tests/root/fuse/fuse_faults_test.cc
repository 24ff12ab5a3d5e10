// Readers that wait, are killed, or get errors.

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <thread>
#include <vector>

#include "tests/root/fuse/fuse_mount_fixture.h"

namespace davit::testing {
namespace {

using std::chrono::milliseconds;

class FuseFaultsTest : public FuseMountTest {
 protected:
  // Reads 4 KiB past the page cache, which is what the kernel lets signals interrupt; 0 on
  // success, else errno.
  int ReadDirect(const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
    void* memory = nullptr;
    if (!fd || ::posix_memalign(&memory, 4096, 4096) != 0) return -1;
    const ssize_t got = ::pread(fd.get(), memory, 4096, 0);
    const int err = got == 4096 ? 0 : errno;
    std::free(memory);
    return err;
  }

  // Ends within ten seconds; the wait status.
  static int Await(pid_t child) {
    for (int i = 0; i < 1000; ++i) {
      int state = 0;
      if (::waitpid(child, &state, WNOHANG) == child) return state;
      std::this_thread::sleep_for(milliseconds(10));
    }
    ::kill(child, SIGKILL);
    return -1;
  }
};

TEST_F(FuseFaultsTest, AnErrorIsEioAndTheNextReadTriesAgain) {
  const std::string content = Pattern(200'000, 1);
  image_.File("file", content);
  Mount();
  image_.blob().Withhold();
  image_.blob().FailWith(Error(Code::kDataLoss, "chunk 0 does not match its digest"));
  EXPECT_EQ(Slurp(Path("file")), "errno 5");
  image_.blob().FailWith(Error(Code::kUnavailable, "connection refused", ECONNREFUSED));
  EXPECT_EQ(Slurp(Path("file")), "errno 5") << "readers get EIO, not the network's errno";
  EXPECT_GE(session().stats().errors, 2U);
  image_.blob().Release();
  EXPECT_EQ(Slurp(Path("file")), content);
}

TEST_F(FuseFaultsTest, AnErrorUnderAMappingIsABusError) {
  image_.File("file", Pattern(8192, 1));
  Mount();
  image_.blob().Withhold();
  image_.blob().FailWith(Error(Code::kDataLoss, "damaged"));
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGBUS, SIG_DFL);  // sanitizers have a handler
    const int fd = ::open(Path("file").c_str(), O_RDONLY | O_CLOEXEC);
    const void* memory = ::mmap(nullptr, 8192, PROT_READ, MAP_SHARED, fd, 0);
    ::_exit(*static_cast<const volatile char*>(memory));
  }
  const int state = Await(child);
  ASSERT_TRUE(WIFSIGNALED(state));
  EXPECT_EQ(WTERMSIG(state), SIGBUS);
}

TEST_F(FuseFaultsTest, BlobsThatCannotBeOpenedAreRetried) {
  image_.File("file", "content");
  image_.FailOpens(Error(Code::kUnavailable, "no cache yet"));
  Mount();
  EXPECT_EQ(Slurp(Path("file")), "errno 5");
  image_.FailOpens(std::nullopt);
  EXPECT_EQ(Slurp(Path("file")), "content");
}

TEST_F(FuseFaultsTest, MetadataWorksWhile64ReadersWait) {
  constexpr int kReaders = 64;
  for (int i = 0; i < kReaders; ++i) image_.File("f" + std::to_string(i), Pattern(5000, 7));
  for (int i = 0; i < 300; ++i) image_.File("dir/e" + std::to_string(i), "x");
  options_.max_threads = 16;
  Mount();
  image_.blob().Withhold();
  std::vector<std::thread> readers;
  std::atomic<int> right{0};
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&, i] {
      if (Slurp(Path("f" + std::to_string(i))) == Pattern(5000, 7)) ++right;
    });
  }
  ASSERT_TRUE(image_.blob().AwaitWaiting(12));  // 16 threads, 4 of them kept free
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  // For a moment more: threads that have replied to an open or a lookup are not yet done with it.
  while (session().Inflight().size() != kReaders && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_EQ(session().Inflight().size(), static_cast<std::size_t>(kReaders));
  EXPECT_EQ(image_.blob().waiting(), 12);
  const TimePoint start = std::chrono::steady_clock::now();
  std::size_t entries = 0;
  DIR* const dir = ::opendir(Path("dir").c_str());
  ASSERT_NE(dir, nullptr);
  while (::readdir(dir) != nullptr) ++entries;
  ::closedir(dir);
  EXPECT_EQ(entries, 302U);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  image_.blob().Release();
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(right, kReaders);
  // A thread is done with a request a moment after its reply.
  for (int i = 0; i < 500 && !session().Inflight().empty(); ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_TRUE(session().Inflight().empty());
}

TEST_F(FuseFaultsTest, TheHungRequestReportNamesTheRead) {
  const auto inode = image_.File("file", Pattern(100'000, 7));
  Mount();
  image_.blob().Withhold();
  std::thread reader([this] { EXPECT_EQ(ReadDirect(Path("file")), 0); });
  ASSERT_TRUE(image_.blob().AwaitWaiting(1));
  std::this_thread::sleep_for(milliseconds(30));
  const auto inflight = session().Inflight();
  image_.blob().Release();
  reader.join();
  ASSERT_EQ(inflight.size(), 1U);
  EXPECT_EQ(inflight[0].operation, "read");
  EXPECT_EQ(inflight[0].inode, inode);
  EXPECT_EQ(inflight[0].offset, 0U);
  EXPECT_EQ(inflight[0].size, 4096U);
  EXPECT_GE(inflight[0].age, milliseconds(30));
}

TEST_F(FuseFaultsTest, AReaderThatWaitsCanBeKilled) {
  image_.File("file", Pattern(100'000, 7));
  Mount();
  image_.blob().Withhold();
  for (const bool direct : {false, true}) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::signal(SIGINT, SIG_DFL);
      if (direct) ::_exit(ReadDirect(Path("file")));
      ::_exit(Slurp(Path("file")).size() == 100'000 ? 0 : 1);
    }
    ASSERT_TRUE(image_.blob().AwaitWaiting(1));
    std::this_thread::sleep_for(milliseconds(50));
    ::kill(child, SIGINT);
    const int state = Await(child);
    ASSERT_TRUE(WIFSIGNALED(state)) << direct;
    EXPECT_EQ(WTERMSIG(state), SIGINT);
  }
  // The read past the page cache is no longer waited for; the page cache's may be.
  for (int i = 0; i < 500 && image_.blob().waiting() > 1; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_LE(image_.blob().waiting(), 1);
  image_.blob().Release();
  EXPECT_EQ(Slurp(Path("file")), Pattern(100'000, 7));
}

TEST_F(FuseFaultsTest, ASignalThatDoesNotKillDoesNotEndARead) {
  image_.File("file", Pattern(100'000, 7));
  Mount();
  image_.blob().Withhold();
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGUSR1, [](int) {});
    ::_exit(ReadDirect(Path("file")));
  }
  ASSERT_TRUE(image_.blob().AwaitWaiting(1));
  for (int i = 0; i < 20; ++i) {
    ::kill(child, SIGUSR1);
    std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_EQ(image_.blob().waiting(), 1);
  image_.blob().Release();
  const int state = Await(child);
  ASSERT_TRUE(WIFEXITED(state));
  EXPECT_EQ(WEXITSTATUS(state), 0) << "neither EINTR nor EIO";
}

TEST_F(FuseFaultsTest, AKillAfterAHarmlessSignalIsNoticed) {
  image_.File("file", Pattern(100'000, 7));
  Mount();
  image_.blob().Withhold();
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGUSR1, [](int) {});
    ::_exit(ReadDirect(Path("file")));
  }
  ASSERT_TRUE(image_.blob().AwaitWaiting(1));
  ::kill(child, SIGUSR1);
  std::this_thread::sleep_for(milliseconds(50));
  ::kill(child, SIGKILL);
  const int state = Await(child);
  EXPECT_TRUE(WIFSIGNALED(state));
}

TEST_F(FuseFaultsTest, ReadTimeout) {
  image_.File("file", Pattern(100'000, 7));
  options_.read_timeout = milliseconds(100);
  Mount();
  image_.blob().Withhold();
  const TimePoint start = std::chrono::steady_clock::now();
  EXPECT_EQ(ReadDirect(Path("file")), EIO);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  image_.blob().Release();
  EXPECT_EQ(ReadDirect(Path("file")), 0);
}

}  // namespace
}  // namespace davit::testing
