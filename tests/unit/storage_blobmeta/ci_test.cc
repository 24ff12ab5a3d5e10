// The stored and the local form of the chunk info array.

#include <gtest/gtest.h>

#include <functional>

#include "tests/unit/storage_blobmeta/helpers.h"

namespace davit::storage {
namespace {

std::string SomeArray(std::uint32_t chunks) {
  std::vector<CiRecord> records;
  for (std::uint32_t i = 0; i < chunks; ++i) {
    records.push_back({.compressed_offset = i * 100,
                       .compressed_size = 100,
                       .uncompressed_offset = i * 4096,
                       .uncompressed_size = 4096,
                       .compressed = true});
  }
  return *EncodeCiArray(records, {});
}

class CiFormTest : public ::testing::TestWithParam<codec::Algorithm> {};

TEST_P(CiFormTest, StoredAndLocalFormGiveTheSameArray) {
  const std::string array = SomeArray(1000);
  auto expect = ExpectFor(array, 1000);
  expect.ci_compressor = GetParam();
  std::string stored = Compress(GetParam(), array);
  expect.ci_compressed_size = stored.size();
  const CiHeader header = HeaderFor(expect);
  stored += EncodeCiHeader(header);
  EXPECT_EQ(*DecodeStoredCi(AsBytes(stored), expect), array);
  const std::string local = EncodeLocalCi(AsBytes(array), header);
  EXPECT_EQ(local.size() % 4096, 0U);
  EXPECT_EQ(*DecodeLocalCi(AsBytes(local), expect), array);
  // Cut short or too long.
  EXPECT_EQ(Outcome(DecodeStoredCi(AsBytes(stored).first(stored.size() - 1), expect)), "data_loss");
  EXPECT_EQ(Outcome(DecodeLocalCi(AsBytes(local + "x"), expect)), "data_loss");
  EXPECT_EQ(Outcome(DecodeLocalCi({}, expect)), "data_loss");
  // Damage to the array: noticed by zstd, which has frames; others give another array at most.
  stored[10] = static_cast<char>(~stored[10]);
  stored[0] = static_cast<char>(~stored[0]);
  const auto damaged = DecodeStoredCi(AsBytes(stored), expect);
  EXPECT_TRUE(!damaged || *damaged != array);
}

INSTANTIATE_TEST_SUITE_P(Compressors, CiFormTest,
                         ::testing::Values(codec::Algorithm::kNone, codec::Algorithm::kLz4Block,
                                           codec::Algorithm::kZstd));

TEST(CiTest, EveryHeaderFieldMustAgree) {
  const std::string array = SomeArray(3);
  const auto expect = ExpectFor(array, 3);
  const std::vector<std::function<void(CiHeader&)>> changes{
      [](CiHeader& h) { h.record_count = 4; },       [](CiHeader& h) { h.offset += 1; },
      [](CiHeader& h) { h.compressed_size += 1; },   [](CiHeader& h) { h.compressor = 3; },
      [](CiHeader& h) { h.uncompressed_size -= 1; },
  };
  const auto outcome = [&](const CiHeader& header, const CiExpectation& e) {
    const std::string stored = array + EncodeCiHeader(header);
    EXPECT_EQ(Outcome(DecodeLocalCi(AsBytes(EncodeLocalCi(AsBytes(array), header)), e)),
              Outcome(DecodeStoredCi(AsBytes(stored), e)));
    return Outcome(DecodeStoredCi(AsBytes(stored), e));
  };
  EXPECT_EQ(outcome(HeaderFor(expect), expect), "ok");
  for (const auto& change : changes) {
    CiHeader header = HeaderFor(expect);
    change(header);
    EXPECT_EQ(outcome(header, expect), "data_loss");
  }
  CiHeader header = HeaderFor(expect);
  header.features = 0xFFFF;  // not compared
  EXPECT_EQ(outcome(header, expect), "ok");
  // The count of a dictionary is its own.
  auto dict = expect;
  dict.features |= kBlobChunkDict;
  dict.chunk_count = 1;
  EXPECT_EQ(outcome(HeaderFor(expect), dict), "ok");
  dict.features |= kBlobBatch | kBlobCiV2;
  EXPECT_EQ(outcome(HeaderFor(expect), dict), "unsupported");
}

TEST(CiTest, BothMagicsAreNeeded) {
  const std::string array = SomeArray(3);
  const auto expect = ExpectFor(array, 3);
  for (const std::size_t at : {std::size_t{0}, std::size_t{4092}}) {
    std::string stored = array + EncodeCiHeader(HeaderFor(expect));
    stored[array.size() + at] ^= 1;
    EXPECT_EQ(Outcome(DecodeStoredCi(AsBytes(stored), expect)), "data_loss");
  }
}

TEST(CiTest, ClaimsThatWouldCostMemoryAreRefused) {
  auto expect = ExpectFor("", 1 << 24);
  expect.ci_compressor = codec::Algorithm::kZstd;
  expect.ci_uncompressed_size = 16ULL << 24;
  expect.ci_compressed_size = 100;
  const std::string stored(100 + kCiHeaderSize, '\0');
  EXPECT_EQ(Outcome(DecodeStoredCi(AsBytes(stored), expect)), "data_loss");
  expect.ci_uncompressed_size = ~0ULL;
  EXPECT_EQ(Outcome(DecodeStoredCi(AsBytes(stored), expect)), "data_loss");
  EXPECT_EQ(Outcome(DecodeLocalCi(AsBytes(stored), expect)), "data_loss");
}

TEST(CiTest, EmptyArray) {
  const auto expect = ExpectFor("", 0);
  const std::string stored = EncodeCiHeader(HeaderFor(expect));
  EXPECT_EQ(*DecodeStoredCi(AsBytes(stored), expect), "");
}

}  // namespace
}  // namespace davit::storage
