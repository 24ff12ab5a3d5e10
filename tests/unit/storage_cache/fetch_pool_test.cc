// When background work may begin.

#include "storage/cache/fetch_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <string>
#include <vector>

namespace davit::storage {
namespace {

using std::chrono::milliseconds;

TimePoint Now() { return std::chrono::steady_clock::now(); }

FetchPool::Job JobOf(Cause cause, std::move_only_function<void()> run) {
  return {.cause = cause,
          .host = "registry",
          .hurry = {},
          .run = std::move(run),
          .fill_asked_at = cause == Cause::kBackfill ? std::optional(Now()) : std::nullopt};
}

FetchPool::Job JobOf(const std::string& owner, std::move_only_function<void()> run) {
  FetchPool::Job job = JobOf(Cause::kDemand, std::move(run));
  job.owner = owner;
  return job;
}

TEST(FetchPool, ManyReadersOfOneImageDoNotKeepAnotherWaiting) {
  std::latch begun(2), first_end(1), end(1), all(11);
  Mutex mutex;
  std::vector<std::string> order;
  FetchPool pool({.threads_per_host = 2});
  for (std::latch* until : {&first_end, &end}) {
    pool.Submit(JobOf("busy", [&begun, until] {
      begun.count_down();
      until->wait();
    }));
  }
  begun.wait();
  const auto note = [&](const std::string& owner) {
    return JobOf(owner, [&, owner] {
      {
        const MutexLock lock(mutex);
        order.push_back(owner);
      }
      all.count_down();
    });
  };
  for (int i = 0; i < 10; ++i) pool.Submit(note("busy"));
  pool.Submit(note("other"));
  first_end.count_down();  // one thread goes through all of them
  all.wait();
  end.count_down();
  const MutexLock lock(mutex);
  EXPECT_EQ(order.front(), "other");
}

// What jobs use is declared before the pool: its end is the end of the last job.
TEST(FetchPool, FillWaitsUntilReadersWereQuiet) {
  std::latch begun(1), end(1), filled(1), prefetched(1);
  std::atomic<TimePoint> demand_end{}, fill_begin{};
  FetchPool pool({.threads_per_host = 4,
                  .quiet_period = milliseconds(100),
                  .quiet_window = milliseconds(60'000)});
  pool.Submit(JobOf(Cause::kDemand, [&] {
    begun.count_down();
    end.wait();
    demand_end = Now();
  }));
  begun.wait();
  pool.Submit(JobOf(Cause::kBackfill, [&] {
    fill_begin = Now();
    filled.count_down();
  }));
  pool.Submit(JobOf(Cause::kPrefetch, [&] { prefetched.count_down(); }));
  prefetched.wait();  // what somebody asked for does not wait
  EXPECT_FALSE(filled.try_wait());
  end.count_down();
  filled.wait();
  EXPECT_GE(fill_begin.load() - demand_end.load(), milliseconds(100));
}

TEST(FetchPool, FillWaitsInTheBeginningOnly) {
  std::latch begun(1), end(1), filled(1);
  FetchPool pool({.threads_per_host = 4,
                  .quiet_period = milliseconds(60'000),
                  .quiet_window = milliseconds(50)});
  pool.Submit(JobOf(Cause::kDemand, [&] {
    begun.count_down();
    end.wait();
  }));
  begun.wait();
  const TimePoint asked = Now();
  pool.Submit(JobOf(Cause::kBackfill, [&] { filled.count_down(); }));
  filled.wait();
  EXPECT_GE(Now() - asked, milliseconds(50));
  end.count_down();
}

TEST(FetchPool, AFillThatIsWantedAtOnceDoesNotWait) {
  std::latch filled(2);
  FetchPool pool({.threads_per_host = 4,
                  .quiet_period = milliseconds(60'000),
                  .quiet_window = milliseconds(60'000)});
  std::stop_source first, second;
  for (const std::stop_source& at_once : {first, second}) {
    FetchPool::Job job = JobOf(Cause::kBackfill, [&] { filled.count_down(); });
    job.at_once = at_once.get_token();
    if (at_once == first) first.request_stop();
    pool.Submit(std::move(job));
  }
  second.request_stop();  // what waits already goes on, too
  pool.Wake();
  filled.wait();
}

TEST(FetchPool, AReaderWhoNeedsItEndsTheWait) {
  std::latch ran(1), filled(1);
  FetchPool pool({.threads_per_host = 4,
                  .quiet_period = milliseconds(60'000),
                  .quiet_window = milliseconds(60'000)});
  pool.Submit(JobOf(Cause::kDemand, [&] { ran.count_down(); }));
  ran.wait();
  std::stop_source hurry;
  pool.Submit(
      {.cause = Cause::kBackfill, .host = "registry", .hurry = hurry.get_token(), .run = [&] {
         filled.count_down();
       }});
  hurry.request_stop();
  pool.Poke();
  filled.wait();
}

}  // namespace
}  // namespace davit::storage
