// The budget of all tables together.

#include "rafs/image/table_memory.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace davit::rafs {
namespace {

using Options = TableMemory::Options;

TEST(TableMemory, ASharesEndMakesRoom) {
  const auto memory = std::make_shared<TableMemory>(Options{.limit_bytes = 100});
  {
    auto one = memory->Take({}, 60, "one");
    ASSERT_TRUE(one.ok());
    one->KeepOnly(20);
    EXPECT_EQ(memory->used(), 20U);
    one->KeepOnly(50);  // it never grows
    EXPECT_EQ(memory->used(), 20U);
    const TableMemory::Share moved = *std::move(one);
    EXPECT_EQ(memory->used(), 20U);
    ASSERT_TRUE(memory->Take({}, 80, "two").ok());
  }
  EXPECT_EQ(memory->used(), 0U);
}

TEST(TableMemory, WhatCanNeverFitIsRefusedAtOnce) {
  const auto memory =
      std::make_shared<TableMemory>(Options{.limit_bytes = 100, .patience = std::chrono::hours(1)});
  const auto refused = memory->Take({}, 101, "the table of X");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), Code::kResourceExhausted);
  EXPECT_NE(refused.error().message().find("the table of X"), std::string::npos);
}

TEST(TableMemory, AnotherOneWaitsForItsTurn) {
  const auto memory =
      std::make_shared<TableMemory>(Options{.limit_bytes = 100, .patience = std::chrono::hours(1)});
  auto first = memory->Take({}, 80, "first");
  ASSERT_TRUE(first.ok());
  std::atomic<bool> taken{false};
  std::jthread second([&] {
    const auto share = memory->Take({}, 50, "second");
    EXPECT_TRUE(share.ok());
    EXPECT_EQ(memory->used(), 90U);
    taken = true;
  });
  EXPECT_FALSE(taken);
  first->KeepOnly(40);
  second.join();
  EXPECT_TRUE(taken);
}

TEST(TableMemory, NobodyWaitsForEver) {
  const auto memory = std::make_shared<TableMemory>(
      Options{.limit_bytes = 100, .patience = std::chrono::milliseconds(5)});
  const auto first = memory->Take({}, 80, "first");
  const auto second = memory->Take({}, 50, "second");
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code(), Code::kResourceExhausted);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(memory->Take({.stop = stop.get_token()}, 50, "third").error().code(), Code::kCancelled);
  EXPECT_EQ(memory->used(), 80U);
}

}  // namespace
}  // namespace davit::rafs
