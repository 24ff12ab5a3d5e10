#include "common/digest/digest.h"

#include <gtest/gtest.h>

namespace davit {
namespace {

// Published test vectors: FIPS 180-4 "abc", BLAKE3 of the empty input, CRC-32C check value.
TEST(Digest, KnownAnswers) {
  EXPECT_EQ(Digest::Of(DigestAlgorithm::kSha256, AsBytes("abc")).Hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Digest::Of(DigestAlgorithm::kBlake3, {}).Hex(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
  EXPECT_EQ(Crc32c(AsBytes("123456789")), 0xE3069283U);
  EXPECT_EQ(Crc32c(AsBytes("6789"), Crc32c(AsBytes("12345"))), 0xE3069283U);
}

TEST(Digest, IncrementalEqualsWhole) {
  const std::string data(300000, 'z');
  for (DigestAlgorithm algorithm : {DigestAlgorithm::kBlake3, DigestAlgorithm::kSha256}) {
    Hasher hasher(algorithm);
    hasher.Update(AsBytes(data).first(12345));
    hasher.Update(AsBytes(data).subspan(12345));
    EXPECT_EQ(hasher.Finish(), Digest::Of(algorithm, AsBytes(data)));
  }
}

TEST(Digest, PeekDoesNotDisturb) {
  const std::string text(10'000, 'x');
  for (const auto algorithm : {DigestAlgorithm::kBlake3, DigestAlgorithm::kSha256}) {
    Hasher hasher(algorithm);
    for (std::size_t i = 0; i <= text.size(); i += 1000) {
      EXPECT_EQ(hasher.Peek(), Digest::Of(algorithm, AsBytes(text).first(i)));
      if (i < text.size()) hasher.Update(AsBytes(text).subspan(i, 1000));
    }
    EXPECT_EQ(hasher.Finish(), Digest::Of(algorithm, AsBytes(text)));
  }
}

TEST(OciDigest, AcceptsOnlyLowerCaseSha256) {
  const std::string hex(64, 'a');
  const auto digest = OciDigest::Parse("sha256:" + hex);
  ASSERT_TRUE(digest.ok());
  EXPECT_EQ(OciDigest::Format(*digest), "sha256:" + hex);
  for (const std::string& bad :
       {std::string(), "sha256:" + hex.substr(1), "sha512:" + hex, "sha256:" + std::string(64, 'A'),
        "sha256:" + std::string(64, '/')}) {
    EXPECT_EQ(OciDigest::Parse(bad).error().code(), Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace davit
