// The parts of the FUSE front end that know nothing of libfuse.

#include <gtest/gtest.h>

#include <cerrno>
#include <deque>
#include <memory>
#include <set>
#include <thread>

#include "rafs/fuse/errors.h"
#include "rafs/fuse/inflight.h"
#include "rafs/fuse/inode_map.h"
#include "rafs/fuse/mount_point.h"
#include "rafs/fuse/read_buffers.h"
#include "rafs/fuse/read_failures.h"
#include "rafs/fuse/workers.h"
#include "tests/support/fake_image/fake_image.h"

namespace davit::rafs {
namespace {

using std::chrono::milliseconds;

TEST(InodeMapTest, IsABijectionWithTheRootAtOne) {
  for (const std::uint64_t root : {1UL, 2UL, 36UL, ~0UL}) {
    const InodeMap map(InodeId{root});
    EXPECT_EQ(map.ToNode({root}), 1U);
    EXPECT_EQ(map.ToInode(1).value, root);
    std::set<std::uint64_t> nodes;
    for (const std::uint64_t id : {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{3},
                                   std::uint64_t{36}, ~0UL - 1, ~0UL}) {
      EXPECT_EQ(map.ToInode(map.ToNode({id})).value, id);
      EXPECT_NE(map.ToNode({id}), 0U);
      nodes.insert(map.ToNode({id}));
    }
    EXPECT_EQ(nodes.size(), 6U);
  }
}

TEST(ReadFailuresTest, StandUntilTheirBytesOrOthersCome) {
  ReadFailures failures;
  std::set<std::uint64_t> local;
  const auto is_local = [&](const ReadFailure& one) { return local.contains(one.inode); };
  const auto add = [&](std::uint64_t inode, Code code) {
    failures.Add({.error = Error(code, "why"),
                  .at = std::chrono::system_clock::now(),
                  .inode = inode,
                  .offset = 0,
                  .size = 4096});
  };
  EXPECT_FALSE(failures.Last(is_local).has_value());
  add(1, Code::kDataLoss);
  add(2, Code::kUnavailable);
  EXPECT_EQ(failures.Last(is_local)->inode, 2U);
  const auto of_the_same_blob = [](const ReadFailure& one) { return one.inode <= 2; };
  add(3, Code::kUnavailable);            // in another blob, perhaps of another host
  failures.OnFetched(of_the_same_blob);  // it is back; what was damaged may still be
  EXPECT_EQ(failures.Last(is_local)->inode, 3U);
  failures.OnFetched([](const ReadFailure& one) { return one.inode == 3; });
  EXPECT_EQ(failures.Last(is_local)->inode, 1U);
  local.insert(1);
  EXPECT_FALSE(failures.Last(is_local).has_value());
  local.clear();  // evicted: it was read in the meantime, that is what counts
  EXPECT_FALSE(failures.Last(is_local).has_value());
  for (std::uint64_t inode = 0; inode < 1000; ++inode) add(inode, Code::kDataLoss);  // bounded
  EXPECT_EQ(failures.Last(is_local)->inode, 999U);
  for (std::uint64_t inode = 900; inode < 1000; ++inode) local.insert(inode);
  EXPECT_FALSE(failures.Last(is_local).has_value());
}

TEST(ReadFailuresTest, APlaceIsABlobThatBytesCameOf) {
  davit::testing::FakeBlob here("here");
  davit::testing::FakeBlob away("away");
  davit::testing::FakeBlob other("other");
  away.Withhold();
  other.Withhold();
  const std::vector<Piece> read{{.blob = &here, .blob_offset = 0, .length = 4},
                                {.blob = nullptr, .blob_offset = 0, .length = 9},  // a hole
                                {.blob = &away, .blob_offset = 0, .length = 4}};
  const Blobs fetched = BlobsToFetchFrom(read);
  EXPECT_EQ(fetched, Blobs{&away});
  const auto failed = [](storage::CachedBlob* blob) {
    return std::vector<Piece>{{.blob = blob, .blob_offset = 1, .length = 2}};
  };
  EXPECT_TRUE(LieInAny(fetched, failed(&away)));
  EXPECT_FALSE(LieInAny(fetched, failed(&other)));
  EXPECT_FALSE(LieInAny(fetched, failed(&here)));
  EXPECT_FALSE(LieInAny(fetched, failed(nullptr)));
}

TEST(InflightTest, ListsWhatIsUnderWayAndKeepsCounters) {
  InflightTable table(2);
  InflightSlot* const a = table.Take();
  InflightSlot* const b = table.Take();
  ASSERT_NE(a, nullptr);
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(table.Take(), nullptr);
  a->Begin(Operation::kRead, 7, 4096, 512);
  b->Begin(Operation::kLookup, 1, 0, 0);
  b->End();
  std::vector<InflightRequest> list;
  table.List(std::chrono::steady_clock::now() + milliseconds(500), list);
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list[0].operation, "read");
  EXPECT_EQ(list[0].inode, 7U);
  EXPECT_EQ(list[0].offset, 4096U);
  EXPECT_EQ(list[0].size, 512U);
  EXPECT_GE(list[0].age, milliseconds(499));
  a->CountReadBytes(512);
  a->CountError();
  InflightTable::Release(a);
  InflightTable::Release(b);
  list.clear();
  table.List(std::chrono::steady_clock::now(), list);
  EXPECT_TRUE(list.empty());
  const FuseStats stats = table.Totals();
  EXPECT_EQ(stats.reads, 1U);
  EXPECT_EQ(stats.lookups, 1U);
  EXPECT_EQ(stats.read_bytes, 512U);
  EXPECT_EQ(stats.errors, 1U);
}

TEST(ReadBuffersTest, ReusesKeepsLittleAndRefusesTooMuch) {
  ReadBuffers pool({.limit_bytes = 4U << 20, .keep_bytes = ReadBuffers::kLarge});
  std::byte* first = nullptr;
  {
    auto buffer = pool.Take(1000);
    ASSERT_TRUE(buffer.ok());
    EXPECT_GE(buffer->bytes().size(), 1000U);
    first = buffer->bytes().data();
  }
  {
    const auto again = pool.Take(ReadBuffers::kSmall);
    EXPECT_EQ(again->bytes().data(), first);
    const auto large = pool.Take(ReadBuffers::kSmall + 1);
    EXPECT_EQ(large->bytes().size(), ReadBuffers::kLarge);
    const auto second = pool.Take(ReadBuffers::kLarge);
    EXPECT_EQ(pool.allocated_bytes(), ReadBuffers::kSmall + 2 * ReadBuffers::kLarge);
  }
  EXPECT_LE(pool.allocated_bytes(), ReadBuffers::kLarge);
  EXPECT_FALSE(pool.Take(ReadBuffers::kLarge + 1).ok());
}

TEST(ReadBuffersTest, WaitsAtTheLimit) {
  ReadBuffers pool({.limit_bytes = ReadBuffers::kLarge, .keep_bytes = 0});
  auto held = std::make_unique<Result<ReadBuffers::Buffer>>(pool.Take(ReadBuffers::kLarge));
  std::atomic<bool> got{false};
  std::thread other([&] {
    const auto buffer = pool.Take(10);
    EXPECT_TRUE(buffer.ok());
    EXPECT_TRUE(got.exchange(true) == false);
  });
  EXPECT_FALSE(got);
  held.reset();
  other.join();
  EXPECT_TRUE(got);
  EXPECT_EQ(pool.allocated_bytes(), 0U);
}

TEST(ErrorsTest, Errnos) {
  EXPECT_EQ(MetadataErrno(Error(Code::kNotFound, "")), ENOENT);
  EXPECT_EQ(MetadataErrno(Error(Code::kInvalidArgument, "", ENOTDIR)), ENOTDIR);
  EXPECT_EQ(MetadataErrno(Error(Code::kDataLoss, "")), EIO);
  EXPECT_EQ(MetadataErrno(Error(Code::kInternal, "", ENOENT)), EIO);
  for (const Code code : {Code::kUnavailable, Code::kDataLoss, Code::kDeadlineExceeded,
                          Code::kResourceExhausted, Code::kUnauthenticated, Code::kNotFound}) {
    EXPECT_EQ(ReadErrno(Error(code, "", ECONNREFUSED), false), EIO);
    EXPECT_EQ(ReadErrno(Error(code, ""), true), EIO);
  }
  EXPECT_EQ(ReadErrno(Error(Code::kCancelled, ""), true), EINTR);
  EXPECT_EQ(ReadErrno(Error(Code::kCancelled, ""), false), EIO);
  EXPECT_EQ(ReadErrno(Error(Code::kInvalidArgument, "", EISDIR), false), EISDIR);
}

TEST(ErrorsTest, TheSameFailureIsLoggedOnce) {
  ErrorLog log;
  const Error error(Code::kDataLoss, "damaged (expected in this test)");
  for (int i = 0; i < 100; ++i) log.Report("read", 7, 0, 1, error);
  EXPECT_EQ(log.written(), 1U);
  log.Report("read", 8, 0, 1, error);
  EXPECT_EQ(log.written(), 2U);
}

TEST(MountPointTest, ReadsFuseConf) {
  auto dir = TempDir::Create("davit-fuse-conf");
  ASSERT_TRUE(dir.ok());
  const std::string path = dir->path() + "/fuse.conf";
  const auto allowed = [&path](std::string_view text) {
    EXPECT_TRUE(WriteFileAtomic(path, AsBytes(text)).ok());
    return UsersMayAllowOther(path);
  };
  EXPECT_TRUE(allowed("user_allow_other\n"));
  EXPECT_TRUE(allowed("mount_max = 5\n  user_allow_other  # yes"));
  EXPECT_FALSE(allowed("#user_allow_other\n"));
  EXPECT_FALSE(allowed("# user_allow_other\nuser_allow_other_no\n"));
  EXPECT_FALSE(allowed(""));
  EXPECT_FALSE(UsersMayAllowOther(dir->path() + "/missing"));
}

// Requests are numbers; a "slow" one blocks its thread until let go.
class FakeSource : public RequestSource {
 public:
  bool Receive(Message& message) override {
    const MutexLock lock(mutex_);
    while (requests_.empty() && !closed_) changed_.Wait(mutex_);
    if (requests_.empty()) return false;
    message.size = static_cast<std::size_t>(requests_.front());
    requests_.pop_front();
    return true;
  }
  void Process(const Message& message) override {
    EXPECT_NE(Workers::CurrentSlot(), nullptr);
    const MutexLock lock(mutex_);
    ++started_;
    changed_.NotifyAll();
    while (message.size == 2 && !let_go_) changed_.Wait(mutex_);
    ++done_;
    changed_.NotifyAll();
  }
  void Free(Message&) override {}
  void Push(int request) {
    const MutexLock lock(mutex_);
    requests_.push_back(request);
    changed_.NotifyAll();
  }
  void Close() {
    const MutexLock lock(mutex_);
    closed_ = true;
    changed_.NotifyAll();
  }
  void LetGo() {
    const MutexLock lock(mutex_);
    let_go_ = true;
    changed_.NotifyAll();
  }
  bool AwaitStarted(int count) { return Await(started_, count); }
  bool AwaitDone(int count) { return Await(done_, count); }

 private:
  bool Await(const int& counter, int count) {
    const TimePoint until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    const MutexLock lock(mutex_);
    while (counter < count && std::chrono::steady_clock::now() < until) {
      changed_.WaitFor(mutex_, milliseconds(50));
    }
    return counter >= count;
  }
  Mutex mutex_;
  CondVar changed_;
  std::deque<int> requests_;
  bool closed_ = false, let_go_ = false;
  int started_ = 0, done_ = 0;
};

TEST(WorkersTest, GrowsForSlowRequestsAndShrinksAfterwards) {
  auto source = std::make_shared<FakeSource>();
  InflightTable slots(8);
  Workers workers(source, *source, slots,
                  {.name = "test", .rest = 2, .max = 8, .park_time = milliseconds(20)});
  ASSERT_TRUE(workers.Start().ok());
  for (int i = 0; i < 7; ++i) source->Push(2);
  ASSERT_TRUE(source->AwaitStarted(7));
  source->Push(1);
  EXPECT_TRUE(source->AwaitDone(1)) << "one thread is left for what is fast";
  EXPECT_EQ(workers.thread_count(), 8U);
  source->LetGo();
  ASSERT_TRUE(source->AwaitDone(8));
  const TimePoint until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (workers.thread_count() > 3 && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
  }
  EXPECT_LE(workers.thread_count(), 3U);
  EXPECT_FALSE(workers.over());
  source->Close();
  EXPECT_TRUE(workers.JoinFor(std::chrono::seconds(10)));
  EXPECT_TRUE(workers.over());
  EXPECT_EQ(source.use_count(), 1) << "the threads have let go";
}

TEST(WorkersTest, JoinHasALimit) {
  auto source = std::make_shared<FakeSource>();
  InflightTable slots(2);
  Workers workers(source, *source, slots, {.name = "test", .rest = 1, .max = 2});
  ASSERT_TRUE(workers.Start().ok());
  EXPECT_FALSE(workers.JoinFor(milliseconds(1)));
  source->Close();
  EXPECT_TRUE(workers.JoinFor(std::chrono::seconds(10)));
}

}  // namespace
}  // namespace davit::rafs
