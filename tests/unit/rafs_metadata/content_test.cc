// Where a file's bytes are.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/unit/rafs_metadata/helpers.h"

namespace davit::rafs {
namespace {

using testing::RawImage;

erofs::ChunkIndex At(std::uint32_t blob, std::uint32_t chunk, std::uint64_t offset) {
  return v6::EncodeChunkIndex({blob, chunk, offset}, 12);
}
constexpr erofs::ChunkIndex kHole{0, 0, 0xFFFF'FFFF};

class ContentTest : public ::testing::Test {
 protected:
  ContentTest() : root_(raw_.ReserveBlock()) {
    raw_.AddBlob(100, 1 << 20);
    raw_.AddBlob(v6::kMaxChunksPerBlob, 1ULL << 40);
  }
  std::vector<Extent> Get(std::uint64_t nid, std::uint64_t offset, std::uint64_t length) {
    std::vector<Extent> out;
    const auto status = metadata_->Extents({nid}, offset, length, out);
    EXPECT_TRUE(status.ok()) << status.error().ToString();
    return out;
  }
  std::string Try(std::uint64_t nid) {
    std::vector<Extent> out;
    return Outcome(metadata_->Extents({nid}, 0, 1 << 20, out));
  }
  void Open() {
    raw_.PutDir(root_, root_, {});
    auto m = OpenBytes(raw_.Build());
    ASSERT_TRUE(m.ok()) << m.error().ToString();
    metadata_ = *std::move(m);
  }

  RawImage raw_{8192};
  std::uint64_t root_;
  std::unique_ptr<Metadata> metadata_;
};

TEST_F(ContentTest, MergesNeighboursAndKeepsHolesAndBlobsApart) {
  // Chunks of 8 KiB: two that are contiguous, a hole of two, one of another blob, a short one.
  const auto file =
      raw_.Add(raw_.File(5 * 8192 + 100, {At(0, 3, 0x4000), At(0, 4, 0x6000), kHole, kHole,
                                          At(1, 0xABCDEF, 0x12345000), At(0, 9, 0x0)}));
  Open();
  const auto all = Get(file, 0, ~0ULL);
  ASSERT_EQ(all.size(), 4U);
  EXPECT_EQ(all[0].length, 2 * 8192U);
  EXPECT_EQ(all[0].blob, 0U);
  EXPECT_EQ(all[0].blob_offset, 0x4000U);
  EXPECT_EQ(all[0].chunk, 3U);
  EXPECT_FALSE(all[1].blob);
  EXPECT_EQ(all[1].length, 2 * 8192U);
  EXPECT_EQ(all[2].blob, 1U);
  EXPECT_EQ(all[2].blob_offset, 0x12345000U);
  EXPECT_EQ(all[2].chunk, 0xABCDEFU);
  EXPECT_EQ(all[3].length, 100U);
  EXPECT_EQ(all[3].file_offset, 5 * 8192U);

  const auto part = Get(file, 8000, 300);
  ASSERT_EQ(part.size(), 1U);
  EXPECT_EQ(part[0].file_offset, 8000U);
  EXPECT_EQ(part[0].blob_offset, 0x4000U + 8000);
  EXPECT_EQ(part[0].length, 300U);
  EXPECT_EQ(part[0].chunk, 3U);
  const auto second = Get(file, 8192, 1);
  EXPECT_EQ(second.at(0).chunk, 4U);
  EXPECT_TRUE(Get(file, 5 * 8192 + 100, 10).empty());
  EXPECT_TRUE(Get(file, 0, 0).empty());
  EXPECT_EQ(Get(file, 5 * 8192 + 99, ~0ULL).at(0).length, 1U);
  // A second call appends and does not touch what the caller had.
  std::vector<Extent> twice = Get(file, 0, 8192);
  ASSERT_TRUE(metadata_->Extents({file}, 8192, 8192, twice).ok());
  EXPECT_EQ(twice.size(), 2U);
}

TEST_F(ContentTest, CountsEntriesByTheImagesChunkSizeNotByTheExponent) {
  auto inode = raw_.File(3 * 8192, {At(0, 0, 0), At(0, 1, 0x2000), At(0, 2, 0x8000)});
  inode.u = erofs::kChunkFormatIndexes | 3;  // the kernel's view: chunks of 32 KiB
  const auto file = raw_.Add(inode);
  Open();
  const auto all = Get(file, 0, ~0ULL);
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[1].blob_offset, 0x8000U);
}

TEST_F(ContentTest, EmptyFilesHaveNoExtents) {
  const auto empty = raw_.Add(raw_.File(0, {}));
  Open();
  EXPECT_TRUE(Get(empty, 0, 100).empty());
}

TEST_F(ContentTest, RefusesWhatItCannotRead) {
  const auto outside = raw_.Add(raw_.File(8192, {At(0, 0, 1 << 20)}));
  const auto partly = raw_.Add(raw_.File(8192, {At(0, 0, (1 << 20) - 4096)}));
  const auto unknown = raw_.Add(raw_.File(8192, {At(7, 0, 0)}));
  const auto primary = raw_.Add(raw_.File(8192, {{0, 0, 5}}));
  auto block_map = raw_.File(8192, {At(0, 0, 0)});
  block_map.u &= ~std::uint32_t{erofs::kChunkFormatIndexes};
  const auto without_indexes = raw_.Add(block_map);
  auto bits48 = raw_.File(8192, {At(0, 0, 0)});
  bits48.u |= 0x40;
  const auto wide = raw_.Add(bits48);
  const auto inline_file = raw_.Add(
      {.mode = S_IFREG | 0644, .size = 3, .layout = erofs::Layout::kInline, .tail = "abc"});
  const auto huge = raw_.Add(raw_.File(1ULL << 62, {At(0, 0, 0)}));
  Open();
  EXPECT_EQ(Try(outside), "data_loss");
  EXPECT_EQ(Try(partly), "data_loss");
  EXPECT_EQ(Try(unknown), "data_loss");
  EXPECT_EQ(Try(primary), "unsupported");
  EXPECT_EQ(Try(without_indexes), "unsupported");
  EXPECT_EQ(Try(wide), "unsupported");
  EXPECT_EQ(Try(inline_file), "unsupported");
  EXPECT_EQ(Try(huge), "data_loss");
  EXPECT_EQ(Try(root_), "invalid_argument");
  EXPECT_EQ(Try(0), "data_loss");
  EXPECT_EQ(Try(~0ULL), "data_loss");
}

}  // namespace
}  // namespace davit::rafs
