#include "daemon/core/evictions.h"

#include <gtest/gtest.h>

#include <latch>
#include <thread>

#include "fakes.h"

namespace davit::daemon {
namespace {

class EvictionsTest : public ::testing::Test {
 protected:
  testing::ManualClock clock;
  EventLog events{10, clock};
};

TEST_F(EvictionsTest, AnswersWithWhatWasFreedOrWhyNot) {
  bool fail = false;
  Evictions evictions(
      [&](std::uint64_t bytes) -> Result<std::uint64_t> {
        if (fail) return Error(Code::kUnavailable, "the disk fails");
        return bytes * 2;
      },
      events);
  const auto freed = evictions.Run(21, std::chrono::seconds(20));
  ASSERT_TRUE(freed.ok());
  EXPECT_EQ(**freed, 42U);
  fail = true;
  EXPECT_EQ(evictions.Run(1, std::chrono::seconds(20)).error().code(), Code::kUnavailable);
  EXPECT_TRUE(events.Since(0).empty());  // who asked has the answer
}

TEST_F(EvictionsTest, ASlowDiskKeepsNobodyWaiting) {
  std::latch disk(1);
  {
    Evictions evictions(
        [&](std::uint64_t bytes) -> Result<std::uint64_t> {
          disk.wait();
          return bytes;
        },
        events);
    const auto pending = evictions.Run(7, std::chrono::milliseconds(1));
    ASSERT_TRUE(pending.ok());
    EXPECT_FALSE(pending->has_value());
    EXPECT_EQ(evictions.Run(8, std::chrono::seconds(20)).error().code(), Code::kAborted);
    disk.count_down();
  }
  ASSERT_EQ(events.Since(0).size(), 1U);
  EXPECT_EQ(events.Since(0)[0].kind, "evicted");
  EXPECT_EQ(events.Since(0)[0].message, "7 of 7 bytes freed");
}

}  // namespace
}  // namespace davit::daemon
