// Order: slots, priorities, yielding, limits.

#include "tests/unit/storage_sched/sched_fixture.h"

namespace davit::storage {
namespace {

class SchedulerTest : public SchedFixture {};

TEST_F(SchedulerTest, DeliversARangeOnceAndInOrder) {
  std::string got;
  auto fetch = Start(Cause::kDemand, {100, 50'000}, &got);
  ASSERT_TRUE(fetch.get().ok());
  EXPECT_EQ(got, Truth({100, 50'000}));
  const Scheduler::Stats stats = scheduler_->stats();
  EXPECT_EQ(stats.requests[0], 1U);
  EXPECT_EQ(stats.bytes[0], 50'000U);
  EXPECT_EQ(stats.running, 0);
}

TEST_F(SchedulerTest, ServesTheMostUrgentFirstAndFifoWithinACause) {
  Make({.max_requests_per_host = 1});
  blob_.source->Close();
  std::vector<std::future<Status>> fetches;
  fetches.push_back(Start(Cause::kDemand, {0, 1}));
  ASSERT_TRUE(blob_.source->WaitForRequests(1));
  const std::pair<Cause, std::uint64_t> queue[] = {{Cause::kBackfill, 1},  {Cause::kPrefetch, 2},
                                                   {Cause::kReadAhead, 3}, {Cause::kDemand, 4},
                                                   {Cause::kDemand, 5},    {Cause::kReadAhead, 6}};
  int waiting = 0;
  for (const auto& [cause, offset] : queue) {
    fetches.push_back(Start(cause, {offset, 1}));
    ASSERT_TRUE(Waiting(++waiting));
  }
  blob_.source->Open();
  for (auto& fetch : fetches) EXPECT_TRUE(fetch.get().ok());
  std::vector<std::uint64_t> order;
  for (const auto& request : blob_.source->requests()) order.push_back(request.range.offset);
  EXPECT_EQ(order, (std::vector<std::uint64_t>{0, 4, 5, 3, 6, 2, 1}));
}

TEST_F(SchedulerTest, BackgroundHasFewSlots) {
  Make({.max_requests_per_host = 8, .max_background_requests = 2});
  blob_.source->Close();
  std::vector<std::future<Status>> fetches;
  for (std::uint64_t i = 0; i < 4; ++i) fetches.push_back(Start(Cause::kBackfill, {i, 1}));
  ASSERT_TRUE(Waiting(2));
  fetches.push_back(Start(Cause::kDemand, {9, 1}));
  ASSERT_TRUE(blob_.source->WaitForRequests(3));  // the reader is not behind them
  EXPECT_EQ(blob_.source->requests().back().cause, Cause::kDemand);
  blob_.source->Open();
  for (auto& fetch : fetches) EXPECT_TRUE(fetch.get().ok());
}

TEST_F(SchedulerTest, ReadAheadLeavesSlotsToReaders) {
  Make({.max_requests_per_host = 4});
  blob_.source->Close();
  std::vector<std::future<Status>> fetches;
  for (std::uint64_t i = 0; i < 4; ++i) fetches.push_back(Start(Cause::kReadAhead, {i, 1}));
  ASSERT_TRUE(Waiting(1));
  fetches.push_back(Start(Cause::kDemand, {9, 1}));
  ASSERT_TRUE(blob_.source->WaitForRequests(4));
  EXPECT_EQ(blob_.source->requests().back().cause, Cause::kDemand);
  blob_.source->Open();
  for (auto& fetch : fetches) EXPECT_TRUE(fetch.get().ok());
}

// A background transfer that has begun, with a reader running beside it.
class YieldTest : public SchedFixture {
 protected:
  void SetUp() override {
    blob_.source->SetPieceSize(1000);
    blob_.source->SetHook(
        [this](const FakeSource::Request& request, std::uint64_t, auto&) -> Status {
          if (request.cause == Cause::kDemand) reader_may_go_.wait(false);
          return {};
        });
    reader_ = Start(Cause::kDemand, {0, 1000});
    ASSERT_TRUE(blob_.source->WaitForRequests(1));
    background_ = Start(Cause::kBackfill, {1000, 5000}, &got_, {}, hurry_.get_token());
    ASSERT_TRUE(clock_.WaitForSleepers(1));
    EXPECT_LE(blob_.source->bytes_sent(), 1000U);
  }
  void LetReaderGo() {
    reader_may_go_ = true;
    reader_may_go_.notify_all();
    EXPECT_TRUE(reader_.get().ok());
  }
  std::atomic<bool> reader_may_go_{false};
  std::future<Status> reader_, background_;
  std::stop_source hurry_;
  std::string got_;
};

TEST_F(YieldTest, BackgroundStandsStillWhileAReaderRuns) {
  LetReaderGo();
  ASSERT_TRUE(background_.get().ok());  // without the clock having moved
  EXPECT_EQ(got_, Truth({1000, 5000}));
}

TEST_F(YieldTest, BackgroundGoesOnAfterMaxYield) {
  clock_.Advance(milliseconds(1999));
  EXPECT_EQ(background_.wait_for(milliseconds(5)), std::future_status::timeout);
  clock_.Advance(milliseconds(1));
  ASSERT_TRUE(background_.get().ok());  // 2 s for the whole transfer, not for each piece
  LetReaderGo();
}

TEST_F(YieldTest, AHurriedTransferDoesNotYield) {
  hurry_.request_stop();
  ASSERT_TRUE(background_.get().ok());
  LetReaderGo();
}

TEST_F(SchedulerTest, AHurriedRequestMovesToTheReadersQueue) {
  Make({.max_requests_per_host = 1});
  blob_.source->Close();
  std::stop_source hurry;
  auto first = Start(Cause::kDemand, {0, 1});
  ASSERT_TRUE(blob_.source->WaitForRequests(1));
  auto backfill = Start(Cause::kBackfill, {1, 1}, nullptr, {}, hurry.get_token());
  ASSERT_TRUE(Waiting(1));
  auto read_ahead = Start(Cause::kReadAhead, {2, 1});
  ASSERT_TRUE(Waiting(2));
  hurry.request_stop();
  // Its thread has to notice before the slot is free.
  ASSERT_TRUE(clock_.WaitForSleepers(2));
  std::this_thread::sleep_for(milliseconds(20));
  blob_.source->Open();
  EXPECT_TRUE(first.get().ok() && backfill.get().ok() && read_ahead.get().ok());
  EXPECT_EQ(blob_.source->requests()[1].range.offset, 1U);
}

TEST_F(SchedulerTest, LimitsBackgroundBandwidth) {
  Make({.background_bytes_per_second = 10'000});
  auto fetch = Start(Cause::kBackfill, {0, 100'000});
  const double took = std::chrono::duration<double>(RunUntilReady(fetch)).count();
  ASSERT_TRUE(fetch.get().ok());
  EXPECT_NEAR(took, 10.0, 0.5);
  auto demand = Start(Cause::kDemand, {0, 100'000});
  ASSERT_TRUE(demand.get().ok());  // readers are not limited
}

TEST_F(SchedulerTest, ANewLimitHoldsAtOnce) {
  Make({.background_bytes_per_second = 1});
  auto fetch = Start(Cause::kBackfill, {0, 100'000});
  ASSERT_TRUE(clock_.WaitForSleepers(1));
  scheduler_->SetBackgroundLimit(0);
  ASSERT_TRUE(fetch.get().ok());
}

TEST_F(SchedulerTest, CancellationEndsEveryKindOfWait) {
  Make({.max_requests_per_host = 1, .background_bytes_per_second = 1});
  std::stop_source stop;
  auto limited = Start(Cause::kBackfill, {0, 1000}, nullptr, stop.get_token());
  ASSERT_TRUE(clock_.WaitForSleepers(1));
  auto queued = Start(Cause::kDemand, {0, 1}, nullptr, stop.get_token());
  ASSERT_TRUE(Waiting(1));
  stop.request_stop();
  EXPECT_EQ(limited.get().error().code(), Code::kCancelled);
  EXPECT_EQ(queued.get().error().code(), Code::kCancelled);
  EXPECT_EQ(scheduler_->stats().running, 0);
  EXPECT_EQ(scheduler_->stats().waiting, 0);
}

}  // namespace
}  // namespace davit::storage
