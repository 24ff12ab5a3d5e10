#include "rafs/fuse/slow_reads.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace davit::rafs {
namespace {

constexpr int kNoSuchThread = 0x7FFFFFF0;  // above every pid_max

std::unique_ptr<SlowRead> Read(std::uint64_t node, int reader = 0) {
  auto read = std::make_unique<SlowRead>();
  read->node = node;
  read->reader = reader;
  read->since = std::chrono::steady_clock::now();
  return read;
}

class SlowReadsTest : public ::testing::Test {
 protected:
  bool AwaitAnswered(std::size_t count) {
    const TimePoint until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    const MutexLock lock(mutex_);
    while (answered_.size() < count && std::chrono::steady_clock::now() < until) {
      changed_.WaitFor(mutex_, std::chrono::milliseconds(50));
    }
    return answered_.size() >= count;
  }
  static bool AwaitStop(const std::stop_source& stop) {
    const TimePoint until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!stop.stop_requested() && std::chrono::steady_clock::now() < until) ::usleep(1000);
    return stop.stop_requested();
  }

  Mutex mutex_;
  CondVar changed_;
  SlowReads::Reads answered_;
  SlowReads slow_{2, [this](SlowReads::Reads reads) {
                    const MutexLock lock(mutex_);
                    for (auto& read : reads) answered_.push_back(std::move(read));
                    changed_.NotifyAll();
                  }};
};

TEST_F(SlowReadsTest, QueuesAboveTheLimitAndGoesOnInOrder) {
  auto a = slow_.Begin(Read(1));
  auto b = slow_.Begin(Read(2));
  ASSERT_NE(a, nullptr);
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(slow_.Begin(Read(3)), nullptr);
  EXPECT_EQ(slow_.Begin(Read(4)), nullptr);
  std::vector<InflightRequest> queued;
  slow_.ListQueued(std::chrono::steady_clock::now(), queued);
  ASSERT_EQ(queued.size(), 2U);
  EXPECT_EQ(queued[0].inode, 3U);
  auto c = slow_.Finish(a.get());
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(c->node, 3U);
  auto d = slow_.Finish(c.get());
  ASSERT_NE(d, nullptr);
  EXPECT_EQ(d->node, 4U);
  EXPECT_EQ(slow_.Finish(d.get()), nullptr);
  EXPECT_EQ(slow_.Finish(b.get()), nullptr);
}

TEST_F(SlowReadsTest, AKilledReaderStopsWaiting) {
  auto read = slow_.Begin(Read(1, kNoSuchThread));
  ASSERT_NE(read, nullptr);
  slow_.Signal(read.get());
  EXPECT_TRUE(AwaitStop(read->stop));
  EXPECT_TRUE(read->killed);
  slow_.Finish(read.get());
}

TEST_F(SlowReadsTest, AKilledReaderInTheQueueIsAnswered) {
  auto a = slow_.Begin(Read(1));
  auto b = slow_.Begin(Read(2));
  auto queued = Read(3, kNoSuchThread);
  SlowRead* const raw = queued.get();
  EXPECT_EQ(slow_.Begin(std::move(queued)), nullptr);
  slow_.Signal(raw);
  ASSERT_TRUE(AwaitAnswered(1));
  EXPECT_EQ(answered_[0]->node, 3U);
  EXPECT_TRUE(answered_[0]->killed);
  slow_.Finish(a.get());
  slow_.Finish(b.get());
}

TEST_F(SlowReadsTest, ASignalBeforeTheReadIsKnownCounts) {
  auto read = Read(1, kNoSuchThread);
  slow_.Signal(read.get());
  read = slow_.Begin(std::move(read));
  ASSERT_NE(read, nullptr);
  EXPECT_TRUE(AwaitStop(read->stop));
  slow_.Finish(read.get());
}

TEST_F(SlowReadsTest, ALivingReaderGoesOnWaitingUntilItIsKilled) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (;;) ::pause();
  }
  auto read = slow_.Begin(Read(1, child));
  slow_.Signal(read.get());
  ::usleep(50'000);
  EXPECT_FALSE(read->stop.stop_requested());
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(AwaitStop(read->stop));
  slow_.Finish(read.get());
}

TEST_F(SlowReadsTest, CancelAllStopsEverybody) {
  auto a = slow_.Begin(Read(1));
  auto b = slow_.Begin(Read(2));
  EXPECT_EQ(slow_.Begin(Read(3)), nullptr);
  const auto unqueued = slow_.CancelAll();
  ASSERT_EQ(unqueued.size(), 1U);
  EXPECT_EQ(unqueued[0]->node, 3U);
  EXPECT_FALSE(unqueued[0]->killed);
  EXPECT_TRUE(a->stop.stop_requested());
  EXPECT_TRUE(b->stop.stop_requested());
  auto late = slow_.Begin(Read(4));
  ASSERT_NE(late, nullptr);
  EXPECT_TRUE(late->stop.stop_requested());
  slow_.Signal(late.get());  // harmless now
  for (auto* read : {a.get(), b.get(), late.get()}) slow_.Finish(read);
}

TEST(IsBeingKilledTest, LooksAtTheThread) {
  EXPECT_FALSE(IsBeingKilled(0));
  EXPECT_FALSE(IsBeingKilled(::getpid()));
  EXPECT_TRUE(IsBeingKilled(kNoSuchThread));
}

}  // namespace
}  // namespace davit::rafs
