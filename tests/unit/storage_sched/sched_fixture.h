#pragma once
// A scheduler on a clock that tests move, and one fake blob.

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "storage/sched/scheduler.h"
#include "tests/support/fake_blob/fake_blob.h"
#include "tests/support/fake_blob/fake_clock.h"

namespace davit::storage {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::FakeBlob;
using test::FakeSource;

class SchedFixture : public ::testing::Test {
 protected:
  SchedFixture() { Make({}); }
  void Make(const Scheduler::Options& options) { scheduler_ = Scheduler::Create(options, clock_); }

  /// Fetches on a thread of its own; the bytes end up in `got`.
  std::future<Status> Start(Cause cause, ByteRange range, std::string* got = nullptr,
                            std::stop_token stop = {}, std::stop_token hurry = {}) {
    return std::async(std::launch::async, [this, cause, range, got, stop, hurry] {
      const Context ctx{.cause = cause, .stop = stop};
      SourceRead how;
      return scheduler_->Fetch(
          ctx, *blob_.source, range, how,
          [got](Bytes piece) -> Status {
            if (got != nullptr) got->append(AsText(piece));
            return {};
          },
          hurry);
    });
  }
  /// Moves time on whenever somebody sleeps, until the future is ready; how far it moved.
  Duration RunUntilReady(std::future<Status>& future) {
    const TimePoint begin = clock_.Now();
    while (future.wait_for(milliseconds(1)) != std::future_status::ready) clock_.AdvanceToNext();
    return clock_.Now() - begin;
  }
  bool Waiting(int count) {
    for (int i = 0; i < 5000; ++i) {
      if (scheduler_->stats().waiting == count) return true;
      std::this_thread::yield();
      std::this_thread::sleep_for(milliseconds(1));
    }
    return false;
  }
  std::string Truth(ByteRange range) const {
    return std::string(AsText(blob_.map->stored().subspan(range.offset, range.length)));
  }

  test::FakeClock clock_;
  FakeBlob blob_{{.chunks = 40}};
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace davit::storage
