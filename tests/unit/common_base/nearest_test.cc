#include "common/base/nearest.h"

#include <gtest/gtest.h>

#include <vector>

namespace davit {
namespace {

TEST(NearestTest, CountsLettersToChange) {
  EXPECT_EQ(EditDistance("", ""), 0U);
  EXPECT_EQ(EditDistance("", "abc"), 3U);
  EXPECT_EQ(EditDistance("abc", ""), 3U);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3U);
  EXPECT_EQ(EditDistance("plainhttp", "plainHTTP"), 4U);
  EXPECT_EQ(EditDistance("plainhttp", "plainHTTP", Case::kIgnored), 0U);
}

TEST(NearestTest, FindsWhatWasMeant) {
  const std::vector<std::string> words{"--source", "--quiet", "--output"};
  EXPECT_EQ(Nearest("--souce", words), "--source");
  EXPECT_EQ(Nearest("--output", words), "--output");
  EXPECT_EQ(Nearest("--zzzzzz", words), std::nullopt);
  EXPECT_EQ(Nearest("--source", {}), std::nullopt);
  EXPECT_EQ(Nearest(std::string(1U << 20, 'a'), words), std::nullopt);
}

}  // namespace
}  // namespace davit
