#include "storage/cache/read_ahead.h"

#include <gtest/gtest.h>

namespace davit::storage {
namespace {

constexpr std::uint64_t kK = 1024;
constexpr ReadAhead::Limits kLimits{.first_window = 256 * kK, .max_window = 4096 * kK};

TEST(ReadAhead, TheWindowDoublesWithASequentialReader) {
  ReadAhead streams(kLimits);
  EXPECT_FALSE(streams.OnRead(0, 64 * kK).sequential);
  std::uint64_t asked = 256 * kK;
  std::uint64_t widest = 0;
  for (std::uint64_t at = 64 * kK; at < 64 << 20; at += 64 * kK) {
    const ReadAhead::Advice advice = streams.OnRead(at, at + 64 * kK);
    ASSERT_TRUE(advice.sequential);
    ASSERT_GE(advice.asked_until, asked);         // nothing is asked for twice
    ASSERT_GE(advice.fetch_until, at + 64 * kK);  // the reader is never overtaken
    asked = advice.fetch_until;
    widest = std::max(widest, advice.fetch_until - at);
  }
  EXPECT_GE(widest, kLimits.max_window);
  EXPECT_LE(widest, kLimits.max_window * 2);
}

TEST(ReadAhead, RandomReadsDoNotReadAhead) {
  ReadAhead streams(kLimits);
  for (std::uint64_t i = 0; i < 100; ++i) {
    const std::uint64_t at = (i * 7919 % 100) * (64 << 20);
    const ReadAhead::Advice advice = streams.OnRead(at, at + 4 * kK);
    EXPECT_FALSE(advice.sequential);
    EXPECT_LE(advice.fetch_until, at + kLimits.first_window);
  }
}

// A program that imports modules jumps back and forth among small files.
TEST(ReadAhead, AMissBehindAReaderTakesItsNeighboursAlong) {
  ReadAhead streams(kLimits);
  streams.OnRead(1000 * kK, 1100 * kK);
  const ReadAhead::Advice advice = streams.OnRead(900 * kK, 901 * kK);
  EXPECT_EQ(advice.fetch_until, 900 * kK + kLimits.first_window);
}

TEST(ReadAhead, SeveralReadersAreToldApart) {
  ReadAhead streams(kLimits);
  for (std::uint64_t step = 0; step < 50; ++step) {
    for (std::uint64_t reader = 0; reader < 8; ++reader) {
      const std::uint64_t at = reader * (1 << 30) + step * 100 * kK;
      EXPECT_EQ(streams.OnRead(at, at + 100 * kK).sequential, step > 0);
    }
  }
}

}  // namespace
}  // namespace davit::storage
