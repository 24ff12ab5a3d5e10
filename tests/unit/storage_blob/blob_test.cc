#include "storage/blob/blob.h"

#include <gtest/gtest.h>

namespace davit::storage {
namespace {

TEST(BlobIdTest, OnlyLowerCaseHex) {
  EXPECT_EQ(BlobId::Parse(std::string(64, 'a'))->value, std::string(64, 'a'));
  EXPECT_TRUE(BlobId::Parse(std::string(32, '0') + std::string(32, '9')).ok());
  for (const std::string& bad :
       {std::string(), std::string(63, 'a'), std::string(65, 'a'), std::string(64, 'A'),
        std::string(64, 'x'), "../" + std::string(61, 'a'), std::string(64, '\0'),
        std::string(63, 'a') + "/", "sha256:" + std::string(64, 'a'), std::string(1 << 20, 'a')}) {
    const auto id = BlobId::Parse(bad);
    ASSERT_FALSE(id.ok());
    EXPECT_EQ(id.error().code(), Code::kInvalidArgument);
    EXPECT_LT(id.error().ToString().size(), 300U);
  }
}

class EmptyMap final : public BlobMap {
 public:
  explicit EmptyMap(DigestAlgorithm algorithm) : algorithm_(algorithm) {}
  DigestAlgorithm digest_algorithm() const override { return algorithm_; }
  std::uint64_t uncompressed_size() const override { return 0; }
  std::uint64_t compressed_size() const override { return 0; }
  std::uint32_t chunk_count() const override { return 0; }
  std::uint32_t unit_count() const override { return 0; }
  Chunk ChunkAt(std::uint32_t) const override { return {}; }
  Unit UnitAt(std::uint32_t) const override { return {}; }
  std::pair<std::uint32_t, std::uint32_t> ChunksOfUnit(std::uint32_t) const override { return {}; }
  std::uint32_t FindChunk(std::uint64_t) const override { return 0; }
  Status Decode(std::uint32_t, Bytes, MutableBytes) const override { return {}; }

 private:
  DigestAlgorithm algorithm_;
};

class VerifyChunkTest : public ::testing::TestWithParam<DigestAlgorithm> {};

TEST_P(VerifyChunkTest, DigestBeforeChecksumAndNothingIsNotFine) {
  const EmptyMap map(GetParam());
  const std::string data = "some content of a chunk";
  Chunk chunk{.offset = 4096, .size = static_cast<std::uint32_t>(data.size())};
  const auto verify = [&](std::string_view bytes) {
    const auto status = VerifyChunk(map, chunk, AsBytes(bytes));
    return status ? "ok" : std::string(CodeName(status.error().code()));
  };
  EXPECT_EQ(verify(data), "failed_precondition");
  chunk.crc32c = Crc32c(AsBytes(data));
  EXPECT_EQ(verify(data), "ok");
  std::string damaged = data;
  damaged[3] ^= 1;
  EXPECT_EQ(verify(damaged), "data_loss");
  chunk.digest = Digest::Of(GetParam(), AsBytes(data));
  EXPECT_EQ(verify(data), "ok");
  EXPECT_EQ(verify(damaged), "data_loss");
  EXPECT_EQ(verify(data.substr(1)), "data_loss");
  // A matching checksum does not excuse a wrong digest.
  chunk.digest = Digest::Of(GetParam(), AsBytes(damaged));
  EXPECT_EQ(verify(data), "data_loss");
}

INSTANTIATE_TEST_SUITE_P(Algorithms, VerifyChunkTest,
                         ::testing::Values(DigestAlgorithm::kBlake3, DigestAlgorithm::kSha256));

}  // namespace
}  // namespace davit::storage
