// The cache on a real file system: a process that is killed at random moments, two processes on
// one directory, holes that really free space.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "common/base/fd.h"
#include "storage/cache/blob_cache.h"
#include "storage/sched/scheduler.h"
#include "tests/support/fake_blob/fake_blob.h"

namespace davit::storage {
namespace {

using test::FakeBlob;

constexpr int kReaders = 16;

struct Node {
  explicit Node(const std::string& directory, std::uint64_t budget = 0) {
    options.directory = directory;
    options.reserve_free_bytes = 0;
    options.budget_bytes = budget;
    options.max_request_bytes = 256 << 10;
    options.flush_interval = std::chrono::milliseconds(5);
    scheduler = Scheduler::Create({}, Clock::Real());
    cache = BlobCache::Open(options, CacheFiles::Real(), *scheduler, Clock::Real());
  }
  BlobCache::Options options;
  std::unique_ptr<Scheduler> scheduler;
  Result<std::unique_ptr<BlobCache>> cache = Error(Code::kInternal, "not opened");
};

bool Right(CachedBlob& blob, const FakeBlob& truth, ByteRange range) {
  std::vector<std::byte> out(range.length);
  const Result<std::size_t> got = blob.Read({}, range.offset, out);
  const Bytes expected = truth.map->content().subspan(
      range.offset,
      std::min<std::uint64_t>(range.length, truth.map->content().size() - range.offset));
  return got.ok() && *got == expected.size() &&
         std::equal(expected.begin(), expected.end(), out.begin());
}

// Reads at random with 16 threads, with a budget that evicts all the time, until it is killed.
[[noreturn]] void ReadUntilKilled(const std::string& directory, const FakeBlob& blob,
                                  std::uint64_t seed) {
  Node node(directory, blob.map->uncompressed_size() / 2);
  if (!node.cache.ok()) ::_exit(2);
  const auto opened = (*node.cache)->OpenBlob(blob.Spec());
  if (!opened.ok()) ::_exit(3);
  (*node.cache)->Fill(*opened, nullptr);
  std::vector<std::thread> readers;
  for (unsigned i = 0; i < kReaders; ++i) {
    readers.emplace_back([&, i] {
      std::mt19937_64 random(seed * 100 + i);
      while (true) {
        const std::uint64_t offset = random() % blob.map->uncompressed_size();
        if (!Right(**opened, blob, {offset, 1 + random() % 50'000})) ::_exit(4);
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  ::_exit(0);
}

TEST(CacheProcess, KilledAtRandomMomentsNeverLeavesAWrongByte) {
  const TempDir dir = *TempDir::Create("cache-kill");
  const FakeBlob blob({.chunks = 600, .max_chunk = 30'000});
  std::mt19937_64 random(std::random_device{}());
  std::uint64_t kept = 0;
  for (std::uint64_t life = 0; life < 20; ++life) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) ReadUntilKilled(dir.path(), blob, life);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 150'000));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself with " << WEXITSTATUS(status);

    Node node(dir.path());
    ASSERT_TRUE(node.cache.ok()) << node.cache.error().ToString();
    const auto opened = *(*node.cache)->OpenBlob(blob.Spec());
    ASSERT_TRUE(opened->Ensure({.cause = Cause::kPrefetch}, {0, 1}).ok());
    kept += opened->progress().bytes_ready;
    for (std::uint32_t i = 0; i < blob.map->chunk_count(); ++i) {
      const Chunk chunk = blob.map->ChunkAt(i);
      if (!opened->IsReady({chunk.offset, chunk.size})) continue;
      ASSERT_TRUE(Right(*opened, blob, {chunk.offset, chunk.size}))
          << "life " << life << " chunk " << i;
    }
  }
  EXPECT_GT(kept, 0U);  // work was not lost altogether
  Node node(dir.path());
  const auto opened = *(*node.cache)->OpenBlob(blob.Spec());
  EXPECT_TRUE(Right(*opened, blob, {0, blob.map->uncompressed_size()}));
}

TEST(CacheProcess, ASecondProcessIsRefusedUntilTheFirstIsGone) {
  const TempDir dir = *TempDir::Create("cache-owner");
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    Node node(dir.path());
    const char ok = node.cache.ok() ? 'y' : 'n';
    if (::write(ready[1], &ok, 1) != 1) ::_exit(1);
    while (true) ::pause();
  }
  char ok = 'n';
  ASSERT_EQ(::read(ready[0], &ok, 1), 1);
  ASSERT_EQ(ok, 'y');
  {
    Node node(dir.path());
    ASSERT_FALSE(node.cache.ok());
    EXPECT_EQ(node.cache.error().code(), Code::kFailedPrecondition);
    EXPECT_NE(node.cache.error().message().find(std::to_string(child)), std::string::npos);
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(Node(dir.path()).cache.ok());
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(CacheProcess, EvictionFreesBlocksOfTheRealFile) {
  const TempDir dir = *TempDir::Create("cache-holes");
  const FakeBlob blob({.chunks = 300, .min_chunk = 8192, .max_chunk = 30'000});
  Node node(dir.path());
  ASSERT_TRUE(node.cache.ok());
  const auto opened = *(*node.cache)->OpenBlob(blob.Spec());
  ASSERT_TRUE(Right(*opened, blob, {0, blob.map->uncompressed_size()}));
  ASSERT_TRUE((*node.cache)->Flush().ok());
  const auto file = *CacheFiles::Real().Open(opened->data_path());
  const std::uint64_t before = *file->AllocatedBytes();
  const std::uint64_t freed = *(*node.cache)->Evict(before / 2);
  EXPECT_GE(freed, before / 2);
  ASSERT_TRUE(file->SyncData().ok());
  EXPECT_LE(*file->AllocatedBytes(), before - freed + freed / 10);
  EXPECT_EQ(*file->Size(), blob.map->uncompressed_size());
  EXPECT_TRUE(Right(*opened, blob, {0, blob.map->uncompressed_size()}));
}

TEST(CacheProcess, FewDescriptorsAndThreadsAreLeftBehind) {
  const TempDir dir = *TempDir::Create("cache-fds");
  const auto count = [](const char* what) { return ListDirectory(what)->size(); };
  const std::size_t fds = count("/proc/self/fd");
  const std::size_t threads = count("/proc/self/task");
  {
    Node node(dir.path());
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      const FakeBlob blob({.seed = seed, .chunks = 20});
      const auto opened = *(*node.cache)->OpenBlob(blob.Spec());
      ASSERT_TRUE(Right(*opened, blob, {0, blob.map->uncompressed_size()}));
    }
    EXPECT_EQ((*node.cache)->List().size(), 20U);
  }
  EXPECT_EQ(count("/proc/self/fd"), fds);
  EXPECT_EQ(count("/proc/self/task"), threads);
}

}  // namespace
}  // namespace davit::storage
