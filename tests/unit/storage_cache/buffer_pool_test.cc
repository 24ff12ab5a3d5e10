#include "storage/cache/buffer_pool.h"

#include <gtest/gtest.h>

#include <future>

namespace davit::storage {
namespace {

TEST(BufferPool, BlocksAtItsLimitUntilABufferComesBack) {
  BufferPool pool(1 << 20);
  auto first = *pool.Acquire({}, 700'000, false);
  auto second =
      std::async(std::launch::async, [&] { return pool.Acquire({}, 700'000, false).ok(); });
  EXPECT_EQ(second.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  first = {};
  EXPECT_TRUE(second.get());
  EXPECT_EQ(pool.in_use(), 0U);
}

TEST(BufferPool, OneBufferIsAlwaysGivenHoweverLarge) {
  BufferPool pool(1 << 20);
  EXPECT_EQ(pool.Acquire({}, 64 << 20, false)->bytes().size(), 64U << 20);
}

TEST(BufferPool, BackgroundLeavesHalfToOthers) {
  BufferPool pool(1 << 20);
  const auto background = *pool.Acquire({}, 400'000, true);
  std::stop_source stop;
  const Context ctx{.stop = stop.get_token()};
  auto more = std::async(std::launch::async,
                         [&] { return pool.Acquire(ctx, 400'000, true).error().code(); });
  EXPECT_TRUE(pool.Acquire({}, 400'000, false).ok());
  EXPECT_EQ(more.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  stop.request_stop();
  EXPECT_EQ(more.get(), Code::kCancelled);
}

}  // namespace
}  // namespace davit::storage
