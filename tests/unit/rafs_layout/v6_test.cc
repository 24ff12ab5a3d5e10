#include "rafs/layout/v6.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/support/raw_image/raw_image.h"

namespace davit::rafs::v6 {
namespace {

using testing::RawImage;

TEST(LayoutTest, ChunkIndexRoundTrip) {
  for (const FileChunk& chunk :
       {FileChunk{0, 0, 0}, FileChunk{253, (1 << 24) - 1, 0xFFFF'FFFEULL << 12},
        FileChunk{7, 0x12'3456, 0x5000}}) {
    const auto decoded = DecodeChunkIndex(EncodeChunkIndex(chunk, 12), 12);
    ASSERT_TRUE(decoded);
    EXPECT_EQ(decoded->blob_index, chunk.blob_index);
    EXPECT_EQ(decoded->chunk_index, chunk.chunk_index);
    EXPECT_EQ(decoded->blob_offset, chunk.blob_offset);
  }
  const auto index = EncodeChunkIndex({1, 0x12'3456, 0x7000}, 12);
  EXPECT_EQ(index.advise, 0x3456);
  EXPECT_EQ(index.device_id, 0x1202);
  EXPECT_EQ(index.blkaddr, 7U);
  EXPECT_FALSE(DecodeChunkIndex({0, 1, 0xFFFF'FFFF}, 12));
  EXPECT_FALSE(DecodeChunkIndex({0, 0, 5}, 12));
}

TEST(LayoutTest, FlagsChooseTheAlgorithms) {
  const std::pair<std::uint64_t, codec::Algorithm> compressors[] = {
      {kFlagCompressNone, codec::Algorithm::kNone},
      {kFlagCompressLz4, codec::Algorithm::kLz4Block},
      {kFlagCompressGzip, codec::Algorithm::kGzip},
      {kFlagCompressZstd, codec::Algorithm::kZstd}};
  for (const auto& [flag, algorithm] : compressors) {
    for (const bool blake3 : {false, true}) {
      RawImage raw;
      raw.ext.flags = flag | (blake3 ? kFlagDigestBlake3 : kFlagDigestSha256) | kFlagHasXattr |
                      kFlagEncryptNone | kFlagInlinedChunkDigest | 0x8000'0000;
      const std::string image = raw.Build();
      EXPECT_TRUE(LooksLikeV6(AsBytes(image)));
      const auto super = ParseSuper(AsBytes(image));
      ASSERT_TRUE(super.ok()) << super.error().ToString();
      EXPECT_EQ(super->compressor, algorithm);
      EXPECT_EQ(super->digester, blake3 ? DigestAlgorithm::kBlake3 : DigestAlgorithm::kSha256);
      EXPECT_FALSE(super->explicit_uid_gid);
      EXPECT_TRUE(super->has_xattr);
    }
  }
}

struct Bad {
  const char* name;
  std::function<void(RawImage&)> change;
  Code code;
  const char* text;
};

class BadSuperTest : public ::testing::TestWithParam<Bad> {};

TEST_P(BadSuperTest, IsRefused) {
  RawImage raw;
  GetParam().change(raw);
  const auto super = ParseSuper(AsBytes(raw.Build()));
  ASSERT_FALSE(super.ok());
  EXPECT_EQ(super.error().code(), GetParam().code) << super.error().ToString();
  EXPECT_NE(super.error().message().find(GetParam().text), std::string::npos)
      << super.error().message();
}

INSTANTIATE_TEST_SUITE_P(
    All, BadSuperTest,
    ::testing::Values(
        Bad{"magic", [](auto& r) { r.super.magic = 1; }, Code::kDataLoss, "magic"},
        Bad{"marker", [](auto& r) { r.super.feature_compat = 0; }, Code::kDataLoss, "marker"},
        Bad{"tarfs",
            [](auto& r) {
              r.ext.flags |= kFlagTarfs;
              r.super.blkszbits = 9;
            },
            Code::kUnsupported, "tarfs"},
        Bad{"block", [](auto& r) { r.super.blkszbits = 9; }, Code::kDataLoss, "block size"},
        Bad{"encrypted", [](auto& r) { r.ext.flags |= kFlagEncryptXts128; }, Code::kUnsupported,
            "encrypted"},
        Bad{"unknown_flag", [](auto& r) { r.ext.flags |= 0x400; }, Code::kUnsupported, "0x400"},
        Bad{"incompat", [](auto& r) { r.super.feature_incompat |= 0x1; }, Code::kUnsupported,
            "features"},
        Bad{"no_chunks", [](auto& r) { r.super.feature_incompat = 8; }, Code::kDataLoss,
            "features"},
        Bad{"slots", [](auto& r) { r.super.sb_extslots = 1; }, Code::kDataLoss, "device table"},
        Bad{"devt", [](auto& r) { r.super.devt_slotoff = 12; }, Code::kDataLoss, "device table"},
        Bad{"inos", [](auto& r) { r.super.inos = 0; }, Code::kDataLoss, "no inodes"},
        Bad{"no_compressor", [](auto& r) { r.ext.flags = kFlagDigestBlake3; }, Code::kDataLoss,
            "no compressor"},
        Bad{"two_compressors", [](auto& r) { r.ext.flags |= kFlagCompressLz4; }, Code::kDataLoss,
            "more than one"},
        Bad{"two_digests", [](auto& r) { r.ext.flags |= kFlagDigestSha256; }, Code::kDataLoss,
            "digest"},
        Bad{"chunk_size", [](auto& r) { r.ext.chunk_size = 5000; }, Code::kDataLoss, "chunk size"},
        Bad{"chunk_small", [](auto& r) { r.ext.chunk_size = 2048; }, Code::kDataLoss, "chunk size"},
        Bad{"chunk_large", [](auto& r) { r.ext.chunk_size = 32 << 20; }, Code::kDataLoss,
            "chunk size"},
        Bad{"meta", [](auto& r) { r.super.meta_blkaddr = 0xFFFF'FFFF; }, Code::kDataLoss,
            "beyond"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(LayoutTest, TablesThatLeaveTheFileOrOverlap) {
  RawImage raw;
  raw.AddBlob(1, 1 << 20);
  raw.chunks.resize(3);
  raw.prefetch = {1, 2};
  const std::string good = raw.Build();
  ASSERT_TRUE(ParseSuper(AsBytes(good)).ok());
  const auto with = [&](const std::function<void(SuperExtension&)>& change) {
    std::string image = good;
    SuperExtension ext;
    std::memcpy(&ext, image.data() + kExtensionOffset, sizeof ext);
    change(ext);
    testing::Patch(image, kExtensionOffset, ext);
    const auto super = ParseSuper(AsBytes(image));
    return super ? "ok" : std::string(CodeName(super.error().code()));
  };
  EXPECT_EQ(with([](auto&) {}), "ok");
  EXPECT_EQ(with([](auto& e) { e.blob_table_offset += 256; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.blob_table_offset = 0; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.blob_table_size = 255; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.blob_table_size = 512; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.chunk_table_offset = ~0ULL << 12; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.chunk_table_size = ~0ULL / 80 * 80; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.chunk_table_size = 79; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.chunk_table_offset = e.blob_table_offset; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.prefetch_table_offset = e.blob_table_offset; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.prefetch_table_size = 3; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.prefetch_table_size = 0x8000'0000; }), "data_loss");
  EXPECT_EQ(with([](auto& e) { e.prefetch_table_offset = 0; }), "ok");  // no table
  const auto cut = ParseSuper(AsBytes(good).first(good.size() - 4096));
  EXPECT_FALSE(cut.ok());
  const auto odd = ParseSuper(AsBytes(good).first(good.size() - 1));
  EXPECT_FALSE(odd.ok());
}

}  // namespace
}  // namespace davit::rafs::v6
