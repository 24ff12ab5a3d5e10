#include "common/config/units.h"

#include <gtest/gtest.h>

namespace davit {
namespace {

using std::chrono::milliseconds;

TEST(SizeTest, ReadsUnits) {
  EXPECT_EQ(*ParseSize("4096"), 4096U);
  EXPECT_EQ(*ParseSize("20GiB"), 20ULL << 30);
  EXPECT_EQ(*ParseSize("20Gi"), 20ULL << 30);
  EXPECT_EQ(*ParseSize("500MB"), 500'000'000U);
  EXPECT_EQ(*ParseSize("1.5 KiB"), 1536U);
  EXPECT_EQ(*ParseSize("0"), 0U);
}

TEST(SizeTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "GiB", "-1", "1gib", "1.5", "1e3", "99999999999999999999",
                           "9999999TiB", "1GiB x", " 1", "0x10", "1.GiB.", "nan"}) {
    EXPECT_FALSE(ParseSize(text).ok()) << text;
  }
}

TEST(SizeTest, FormatsSoThatItReadsBack) {
  for (const std::uint64_t size : {0ULL, 1ULL, 1000ULL, 1024ULL, 1536ULL << 10, 20ULL << 30}) {
    EXPECT_EQ(*ParseSize(FormatSize(size)), size);
  }
  EXPECT_EQ(FormatSize(20ULL << 30), "20GiB");
}

TEST(DurationTest, ReadsUnits) {
  EXPECT_EQ(*ParseDuration("500ms"), milliseconds(500));
  EXPECT_EQ(*ParseDuration("90s"), milliseconds(90'000));
  EXPECT_EQ(*ParseDuration("1m30s"), milliseconds(90'000));
  EXPECT_EQ(*ParseDuration("1.5s"), milliseconds(1500));
  EXPECT_EQ(*ParseDuration("1d2h"), milliseconds(93'600'000));
  EXPECT_EQ(*ParseDuration("0"), milliseconds(0));
}

TEST(DurationTest, RefusesWhatIsNoDuration) {
  for (const char* text :
       {"", "5", "5x", "s", "-1s", "30s1m", "1s1s", "1 s", "99999999999999d", "1ms2s"}) {
    EXPECT_FALSE(ParseDuration(text).ok()) << text;
  }
}

TEST(DurationTest, FormatsSoThatItReadsBack) {
  for (const int ms : {1, 999, 1000, 90'000, 86'400'000, 93'600'001}) {
    EXPECT_EQ(*ParseDuration(FormatDuration(milliseconds(ms))), milliseconds(ms));
  }
}

}  // namespace
}  // namespace davit
