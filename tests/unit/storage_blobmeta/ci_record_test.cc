#include "storage/blobmeta/ci_record.h"

#include <gtest/gtest.h>

#include <random>

namespace davit::storage {
namespace {

TEST(CiRecordTest, V1BitsAreWhereTheFormatHasThem) {
  // Of an image made by nydus: chunk 1 is 13400 bytes at 20480, stored as 2974 bytes at 4828.
  CiRecord r;
  r.uncompressed_offset = 20480;
  r.uncompressed_size = 13400;
  r.compressed_offset = 4828;
  r.compressed_size = 2974;
  r.compressed = true;
  std::string bytes;
  ASSERT_TRUE(AppendRecordV1(r, bytes).ok());
  std::uint64_t words[2];
  ASSERT_EQ(bytes.size(), sizeof words);
  std::memcpy(words, bytes.data(), sizeof words);
  EXPECT_EQ(words[0], (13399ULL << 44) | 20480);
  EXPECT_EQ(words[1], (2973ULL << 44) | 4828);
}

void ExpectSame(const CiRecord& a, const CiRecord& b) {
  EXPECT_EQ(a.compressed_offset, b.compressed_offset);
  EXPECT_EQ(a.compressed_size, b.compressed_size);
  EXPECT_EQ(a.uncompressed_offset, b.uncompressed_offset);
  EXPECT_EQ(a.uncompressed_size, b.uncompressed_size);
  EXPECT_EQ(a.compressed, b.compressed);
  EXPECT_EQ(a.batch, b.batch);
  EXPECT_EQ(a.batch_index, b.batch_index);
  EXPECT_EQ(a.offset_in_batch, b.offset_in_batch);
  EXPECT_EQ(a.crc32c, b.crc32c);
}

TEST(CiRecordTest, RoundTripsOverTheWholeRange) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 20000; ++i) {
    CiRecord r;
    r.uncompressed_offset = random() & 0xFFF'FFFF'F000;
    r.uncompressed_size = static_cast<std::uint32_t>(random() % (1 << 24)) + 1;
    r.compressed_offset = random() & 0xFF'FFFF'FFFF;
    r.compressed_size = static_cast<std::uint32_t>(random() % (1 << 24)) + 1;
    r.compressed = r.compressed_size != r.uncompressed_size;
    std::string bytes;
    ASSERT_TRUE(AppendRecordV1(r, bytes).ok());
    ExpectSame(DecodeRecordV1(AsBytes(bytes)).record, r);
    r.compressed_size = std::min(r.compressed_size, (1U << 24) - 1);
    if (i % 3 == 0) r.crc32c = static_cast<std::uint32_t>(random());
    if (i % 3 == 1) {
      r.batch = r.compressed = true;
      r.compressed_size = 0;
      r.batch_index = static_cast<std::uint32_t>(random());
      r.offset_in_batch = static_cast<std::uint32_t>(random());
    }
    bytes.clear();
    ASSERT_TRUE(AppendRecordV2(r, bytes).ok());
    ExpectSame(DecodeRecordV2(AsBytes(bytes)).record, r);
  }
}

TEST(CiRecordTest, FieldsThatDoNotFitAreRefused) {
  const CiRecord good{.compressed_offset = 0,
                      .compressed_size = 10,
                      .uncompressed_offset = 4096,
                      .uncompressed_size = 20,
                      .compressed = true};
  const auto code = [](CiRecord r, bool v2) {
    std::string out;
    const auto status = v2 ? AppendRecordV2(r, out) : AppendRecordV1(r, out);
    return status ? "ok" : std::string(CodeName(status.error().code()));
  };
  EXPECT_EQ(code(good, false), "ok");
  EXPECT_EQ(code(good, true), "ok");
  for (const bool v2 : {false, true}) {
    auto r = good;
    r.uncompressed_offset = 100;
    EXPECT_EQ(code(r, v2), "invalid_argument");
    r = good;
    r.uncompressed_offset = 1ULL << 44;
    EXPECT_EQ(code(r, v2), "invalid_argument");
    r = good;
    r.compressed_offset = 1ULL << 40;
    EXPECT_EQ(code(r, v2), "invalid_argument");
    r = good;
    r.uncompressed_size = 0;
    EXPECT_EQ(code(r, v2), "invalid_argument");
    r = good;
    r.uncompressed_size = (1 << 24) + 1;
    EXPECT_EQ(code(r, v2), "invalid_argument");
    r = good;
    r.compressed_size = 0;
    EXPECT_EQ(code(r, v2), "invalid_argument");
  }
  auto r = good;
  r.crc32c = 1;
  EXPECT_EQ(code(r, false), "invalid_argument");
  r = good;
  r.compressed = false;  // V1 cannot say that
  EXPECT_EQ(code(r, false), "invalid_argument");
  r = good;
  r.compressed_size = 1 << 24;
  EXPECT_EQ(code(r, true), "invalid_argument");
  EXPECT_FALSE(
      EncodeCiArray({{.uncompressed_size = 1, .batch = true, .batch_index = 1}}, {{5, 6}}).ok());
}

}  // namespace
}  // namespace davit::storage
