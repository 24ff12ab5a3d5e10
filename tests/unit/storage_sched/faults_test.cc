// What happens when the host does not answer as it should.

#include "storage/sched/scheduled_source.h"
#include "tests/unit/storage_sched/sched_fixture.h"

namespace davit::storage {
namespace {

class SchedulerFaults : public SchedFixture {
 protected:
  static Error Away() { return Error(Code::kUnavailable, "connection refused"); }
};

TEST_F(SchedulerFaults, WaitsThroughAnOutageOfTwoSeconds) {
  const TimePoint back = clock_.Now() + seconds(2);
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    if (clock_.Now() < back) return Away();
    return {};
  });
  std::string got;
  auto fetch = Start(Cause::kDemand, {0, 1000}, &got);
  const Duration took = RunUntilReady(fetch);
  ASSERT_TRUE(fetch.get().ok());
  EXPECT_EQ(got, Truth({0, 1000}));
  EXPECT_GE(took, seconds(2));
  EXPECT_LE(took, seconds(5));
  EXPECT_GE(scheduler_->stats().retries, 3U);
}

TEST_F(SchedulerFaults, AScheduledSourceIsPatientToo) {
  std::atomic<int> failures{3};
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    if (failures-- > 0) return Away();
    return {};
  });
  const auto source = WithScheduler(blob_.source, *scheduler_);
  std::string got;
  auto read = std::async(std::launch::async, [&] {
    SourceRead how;
    return source->Read({}, {5, 100}, how, [&](Bytes piece) -> Status {
      got += AsText(piece);
      return {};
    });
  });
  RunUntilReady(read);
  ASSERT_TRUE(read.get().ok());
  EXPECT_EQ(got, Truth({5, 100}));
}

TEST_F(SchedulerFaults, GivesUpAfterTheDemandPatienceWithTheCause) {
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status { return Away(); });
  auto fetch = Start(Cause::kDemand, {0, 1000});
  const Duration took = RunUntilReady(fetch);
  const Status status = fetch.get();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code(), Code::kUnavailable);
  EXPECT_NE(status.error().message().find("connection refused"), std::string::npos);
  EXPECT_NE(status.error().message().find("gave up after"), std::string::npos);
  EXPECT_FALSE(status.error().hint().empty());
  EXPECT_EQ(took, seconds(60));
  EXPECT_EQ(scheduler_->stats().failures, 1U);
}

TEST_F(SchedulerFaults, BackgroundIsMorePatientUntilSomebodyWaits) {
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status { return Away(); });
  auto fetch = Start(Cause::kBackfill, {0, 1000});
  EXPECT_EQ(RunUntilReady(fetch), seconds(600));
  EXPECT_FALSE(fetch.get().ok());
  std::stop_source hurry;
  hurry.request_stop();
  auto hurried = Start(Cause::kBackfill, {0, 1000}, nullptr, {}, hurry.get_token());
  EXPECT_EQ(RunUntilReady(hurried), seconds(60));
  EXPECT_FALSE(hurried.get().ok());
}

TEST_F(SchedulerFaults, PatienceCountsFromTheLastProgress) {
  blob_.source->SetPieceSize(100);
  // One piece every 50 s, each on a new connection: slow, but it moves.
  std::atomic<int> calls{0};
  TimePoint next = clock_.Now();
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    ++calls;
    if (clock_.Now() < next) return Away();
    next = clock_.Now() + seconds(50);
    return {};
  });
  std::string got;
  auto fetch = Start(Cause::kDemand, {0, 500}, &got);
  const Duration took = RunUntilReady(fetch);
  ASSERT_TRUE(fetch.get().ok());
  EXPECT_EQ(got, Truth({0, 500}));
  EXPECT_GE(took, seconds(200));
}

TEST_F(SchedulerFaults, ResumesAtTheByteWhereItBroke) {
  blob_.source->SetPieceSize(1000);
  std::atomic<int> breaks{3};
  blob_.source->SetHook([&](const auto& request, std::uint64_t position, auto&) -> Status {
    if (position > request.range.offset + 1500 && breaks-- > 0) return Away();
    return {};
  });
  std::string got;
  auto fetch = Start(Cause::kDemand, {7, 20'000}, &got);
  RunUntilReady(fetch);
  ASSERT_TRUE(fetch.get().ok());
  EXPECT_EQ(got, Truth({7, 20'000}));
  std::uint64_t expected = 7;
  for (const auto& request : blob_.source->requests()) {
    EXPECT_EQ(request.range.offset, expected);
    expected += 2000;
  }
  EXPECT_EQ(blob_.source->bytes_sent(), 20'000U);  // no byte twice
}

TEST_F(SchedulerFaults, RetryAfterHoldsForEverybodyOfTheHost) {
  std::atomic<bool> throttled{false};
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    if (throttled.exchange(true)) return {};
    return Error(Code::kUnavailable, "429").WithRetryAfter(seconds(30));
  });
  const TimePoint begin = clock_.Now();
  auto first = Start(Cause::kDemand, {0, 10});
  ASSERT_TRUE(blob_.source->WaitForRequests(1));
  ASSERT_TRUE(clock_.WaitForSleepers(1));
  auto second = Start(Cause::kDemand, {20, 10});
  ASSERT_TRUE(clock_.WaitForSleepers(2));
  clock_.Advance(seconds(29));
  std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(blob_.source->requests().size(), 1U);
  RunUntilReady(first);
  RunUntilReady(second);
  ASSERT_TRUE(first.get().ok() && second.get().ok());
  EXPECT_GE(clock_.Now() - begin, seconds(30));
  EXPECT_EQ(scheduler_->stats().throttled, 1U);
}

TEST_F(SchedulerFaults, ARetryAfterOfAnHourIsNotBelieved) {
  Make({.demand_patience = std::chrono::hours(3)});
  std::atomic<bool> throttled{false};
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    if (throttled.exchange(true)) return {};
    return Error(Code::kUnavailable, "429").WithRetryAfter(seconds(3600));
  });
  auto fetch = Start(Cause::kDemand, {0, 10});
  const Duration took = RunUntilReady(fetch);
  ASSERT_TRUE(fetch.get().ok());
  EXPECT_GE(took, kMaxRetryAfter);
  EXPECT_LE(took, kMaxRetryAfter + seconds(5));
}

TEST_F(SchedulerFaults, AnotherHostIsNotAffected) {
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    return Error(Code::kUnavailable, "429").WithRetryAfter(seconds(30));
  });
  std::stop_source stop;
  auto blocked = Start(Cause::kDemand, {0, 10}, nullptr, stop.get_token());
  ASSERT_TRUE(clock_.WaitForSleepers(1));
  FakeSource other(blob_.map, "other.test");
  SourceRead how;
  EXPECT_TRUE(scheduler_->Fetch({}, other, {0, 10}, how, [](Bytes) -> Status { return {}; }).ok());
  stop.request_stop();
  EXPECT_EQ(blocked.get().error().code(), Code::kCancelled);
}

TEST_F(SchedulerFaults, ABrokenHostGetsOneProbeAtATime) {
  Make({.demand_patience = std::chrono::hours(1)});
  std::atomic<bool> away{true};
  std::atomic<int> inside{0}, most{0}, calls{0};
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    ++calls;
    const int now = ++inside;
    if (calls > 5 && now > most) most = now;
    std::this_thread::yield();
    --inside;
    if (away) return Away();
    return {};
  });
  std::vector<std::future<Status>> fetches;
  for (std::uint64_t i = 0; i < 8; ++i) fetches.push_back(Start(Cause::kDemand, {i, 1}));
  ASSERT_TRUE(blob_.source->WaitForRequests(5));
  const TimePoint begin = clock_.Now();
  while (clock_.Now() < begin + seconds(30)) {
    clock_.Advance(milliseconds(250));
    std::this_thread::sleep_for(milliseconds(1));
  }
  // One probe per back-off instead of eight readers times their own retries.
  EXPECT_LE(blob_.source->requests().size(), 8U + 20U);
  away = false;
  for (auto& fetch : fetches) {
    while (fetch.wait_for(milliseconds(1)) != std::future_status::ready) clock_.Advance(seconds(1));
    EXPECT_TRUE(fetch.get().ok());
  }
}

// All that run when a host goes away fail at once; that must not count as an outage of hours.
TEST_F(SchedulerFaults, ManyRequestsThatBreakTogetherAreOneFailure) {
  Make({.demand_patience = std::chrono::hours(1)});
  std::atomic<int> calls{0};
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    if (++calls > 12) return {};
    while (calls < 12) std::this_thread::yield();
    return Away();
  });
  std::vector<std::future<Status>> fetches;
  for (std::uint64_t i = 0; i < 12; ++i) fetches.push_back(Start(Cause::kDemand, {i, 1}));
  ASSERT_TRUE(blob_.source->WaitForRequests(12));
  const TimePoint begin = clock_.Now();
  // In small steps: a leap to the next sleeper's end could be one over its patience while a probe
  // is on its way.
  for (auto& fetch : fetches) {
    while (fetch.wait_for(milliseconds(1)) != std::future_status::ready)
      clock_.Advance(milliseconds(2));
    EXPECT_TRUE(fetch.get().ok());
  }
  EXPECT_LE(clock_.Now() - begin, seconds(4));  // a long outage would be looked at after 5 s
}

TEST_F(SchedulerFaults, OtherErrorsAreReturnedAtOnce) {
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    return Error(Code::kUnauthenticated, "401");
  });
  EXPECT_EQ(Start(Cause::kDemand, {0, 10}).get().error().code(), Code::kUnauthenticated);
  EXPECT_EQ(blob_.source->requests().size(), 1U);
}

TEST_F(SchedulerFaults, TheSinksErrorIsReturnedAtOnce) {
  SourceRead how;
  const Status status = scheduler_->Fetch({}, *blob_.source, {0, 10}, how, [](Bytes) -> Status {
    return Error(Code::kUnavailable, "sink");
  });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message(), "sink");
  EXPECT_EQ(blob_.source->requests().size(), 1U);
}

TEST_F(SchedulerFaults, AJumpOfTheWallClockChangesNothing) {
  blob_.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status { return Away(); });
  auto fetch = Start(Cause::kDemand, {0, 10});
  ASSERT_TRUE(clock_.WaitForSleepers(1));
  clock_.JumpWall(std::chrono::hours(24 * 365));
  EXPECT_EQ(fetch.wait_for(milliseconds(5)), std::future_status::timeout);
  EXPECT_EQ(RunUntilReady(fetch), seconds(60));
  EXPECT_FALSE(fetch.get().ok());
}

}  // namespace
}  // namespace davit::storage
