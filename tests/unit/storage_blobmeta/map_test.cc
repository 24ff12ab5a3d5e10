// BlobMaps of plain and batch blobs: what they say and what they refuse.

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>

#include "tests/unit/storage_blobmeta/helpers.h"

namespace davit::storage {
namespace {

class FakeDigests final : public ChunkDigests {
 public:
  Entry Get(std::uint32_t index) const override {
    const auto it = entries.find(index);
    return it == entries.end() ? Entry{} : it->second;
  }
  std::map<std::uint32_t, Entry> entries;
};

/// Chunks of these sizes, one after the other; the odd ones compress to half their size.
std::vector<CiRecord> PlainRecords(const std::vector<std::uint32_t>& sizes) {
  std::vector<CiRecord> out;
  std::uint64_t offset = 0, stored = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    CiRecord r{.compressed_offset = stored,
               .compressed_size = i % 2 == 1 ? sizes[i] / 2 : sizes[i],
               .uncompressed_offset = offset,
               .uncompressed_size = sizes[i],
               .compressed = i % 2 == 1};
    stored += r.compressed_size;
    offset = AlignUp(offset + sizes[i], 4096);
    out.push_back(r);
  }
  return out;
}

using MapResult = Result<std::shared_ptr<const BlobMap>>;

MapResult PlainMap(const std::vector<CiRecord>& records,
                   const std::function<void(CiExpectation&)>& change = {},
                   std::shared_ptr<const ChunkDigests> digests = nullptr) {
  const auto array = EncodeCiArray(records, {});
  if (!array) return array.error();
  auto expect = ExpectFor(*array, static_cast<std::uint32_t>(records.size()));
  if (change) change(expect);
  return MakeRafsBlobMap(*array, expect, std::move(digests));
}

TEST(MapTest, PlainBlob) {
  auto digests = std::make_shared<FakeDigests>();
  digests->entries[1].digest = Digest::Of(DigestAlgorithm::kBlake3, AsBytes("x"));
  digests->entries[1].place = ChunkDigests::Place{8192, 4096};
  digests->entries[2].crc32c = 77;
  const auto map = PlainMap(PlainRecords({5000, 4096, 1 << 19}), {}, digests);
  ASSERT_TRUE(map.ok()) << map.error().ToString();
  const BlobMap& m = **map;
  EXPECT_EQ(m.chunk_count(), 3U);
  EXPECT_EQ(m.unit_count(), 3U);
  EXPECT_EQ(m.uncompressed_size(), 16U << 20);
  EXPECT_EQ(m.compressed_size(), 1U << 20);
  EXPECT_EQ(m.UnitAt(1).compressed_offset, 5000U);
  EXPECT_EQ(m.UnitAt(1).compressed_size, 2048U);
  EXPECT_EQ(m.UnitAt(1).uncompressed_size, 4096U);
  EXPECT_EQ(m.ChunkAt(1).offset, 8192U);
  EXPECT_EQ(m.ChunkAt(1).unit, 1U);
  EXPECT_EQ(m.ChunkAt(1).digest, digests->entries[1].digest);
  EXPECT_EQ(m.ChunkAt(2).crc32c, 77U);
  EXPECT_FALSE(m.ChunkAt(0).digest);
  EXPECT_EQ(m.ChunksOfUnit(2), (std::pair{2U, 3U}));
  // Inside, in the padding, and behind the last one.
  EXPECT_EQ(m.FindChunk(0), 0U);
  EXPECT_EQ(m.FindChunk(4999), 0U);
  EXPECT_EQ(m.FindChunk(5000), 1U);
  EXPECT_EQ(m.FindChunk(8191), 1U);
  EXPECT_EQ(m.FindChunk(12288), 2U);
  EXPECT_EQ(m.FindChunk(12288 + (1 << 19)), 3U);
  EXPECT_EQ(m.FindChunk(~0ULL), 3U);
}

class MapDecodeTest : public ::testing::TestWithParam<codec::Algorithm> {};

TEST_P(MapDecodeTest, DecodesCompressedAndRawUnits) {
  const std::string content(10000, 'a');
  const std::string packed = Compress(GetParam(), content);
  const bool shrinks = packed.size() != content.size();
  const std::vector<CiRecord> records{{.compressed_offset = 0,
                                       .compressed_size = static_cast<std::uint32_t>(packed.size()),
                                       .uncompressed_size = 10000,
                                       .compressed = shrinks},
                                      {.compressed_offset = packed.size(),
                                       .compressed_size = 10000,
                                       .uncompressed_offset = 12288,
                                       .uncompressed_size = 10000}};
  const auto map = PlainMap(records, [](auto& e) { e.compressor = GetParam(); });
  ASSERT_TRUE(map.ok()) << map.error().ToString();
  std::string out(10000, '\0');
  const auto room = std::as_writable_bytes(std::span(out));
  ASSERT_TRUE((*map)->Decode(0, AsBytes(packed), room).ok());
  EXPECT_EQ(out, content);
  const std::string raw(10000, 'r');
  ASSERT_TRUE((*map)->Decode(1, AsBytes(raw), room).ok());
  EXPECT_EQ(out, raw);
  EXPECT_EQ(Outcome((*map)->Decode(1, AsBytes(raw).first(9999), room)), "data_loss");
  EXPECT_EQ(Outcome((*map)->Decode(1, AsBytes(raw), room.first(9999))), "data_loss");
  if (shrinks) {
    const std::string garbage(packed.size(), '\xee');
    EXPECT_EQ(Outcome((*map)->Decode(0, AsBytes(garbage), room)), "data_loss");
  }
}

INSTANTIATE_TEST_SUITE_P(Compressors, MapDecodeTest,
                         ::testing::Values(codec::Algorithm::kNone, codec::Algorithm::kLz4Block,
                                           codec::Algorithm::kZstd));

TEST(MapTest, RefusesWhatDoesNotFitTogether) {
  const auto good = PlainRecords({5000, 4096, 9000});
  const auto with = [&](const std::function<void(std::vector<CiRecord>&)>& change) {
    auto records = good;
    change(records);
    return Outcome(PlainMap(records));
  };
  EXPECT_EQ(with([](auto&) {}), "ok");
  EXPECT_EQ(with([](auto& r) { r[1].uncompressed_offset = 0; }), "data_loss");     // overlap
  EXPECT_EQ(with([](auto& r) { r[1].uncompressed_offset = 4096; }), "data_loss");  // into 0
  EXPECT_EQ(with([](auto& r) { std::swap(r[0], r[1]); }), "data_loss");            // order
  EXPECT_EQ(with([](auto& r) { r[2].uncompressed_offset = 16 << 20; }), "data_loss");
  EXPECT_EQ(with([](auto& r) { r[1].compressed_offset -= 1; }), "data_loss");       // overlap
  EXPECT_EQ(with([](auto& r) { r[2].compressed_offset = 1 << 20; }), "data_loss");  // end
  const auto expecting = [&](const std::function<void(CiExpectation&)>& change) {
    return Outcome(PlainMap(good, change));
  };
  EXPECT_EQ(expecting([](auto& e) { e.chunk_size = 8192; }), "data_loss");
  EXPECT_EQ(expecting([](auto& e) { e.data_size = 5000 + 2048 + 8999; }), "data_loss");
  EXPECT_EQ(expecting([](auto& e) { e.uncompressed_size = 12288 + 8999; }), "data_loss");
  EXPECT_EQ(expecting([](auto& e) { e.compressor = codec::Algorithm::kNone; }), "data_loss");
  EXPECT_EQ(expecting([](auto& e) { e.chunk_count = 4; }), "data_loss");
  EXPECT_EQ(expecting([](auto& e) { e.chunk_count = 2; }), "data_loss");
  EXPECT_EQ(expecting([](auto& e) { e.features |= kBlobBatch; }), "data_loss");
  for (const auto bit : {kBlobZran, kBlobTarfs, kBlobEncrypted, kBlobExternal, kBlobSeparate}) {
    EXPECT_EQ(expecting([bit](auto& e) { e.features |= bit; }), "unsupported");
  }
  // A dictionary's table knows only the chunks that it took.
  EXPECT_EQ(expecting([](auto& e) {
              e.chunk_count = 1;
              e.features |= kBlobChunkDict;
            }),
            "ok");
}

TEST(MapTest, AChunkMustBeWhereTheBootstrapSays) {
  // Otherwise a hostile array could exchange two genuine chunks.
  auto digests = std::make_shared<FakeDigests>();
  digests->entries[1].place = ChunkDigests::Place{8192, 4096};
  EXPECT_EQ(Outcome(PlainMap(PlainRecords({5000, 4096}), {}, digests)), "ok");
  digests->entries[1].place = ChunkDigests::Place{0, 4096};
  EXPECT_EQ(Outcome(PlainMap(PlainRecords({5000, 4096}), {}, digests)), "data_loss");
  digests->entries[1].place = ChunkDigests::Place{8192, 4095};
  EXPECT_EQ(Outcome(PlainMap(PlainRecords({5000, 4096}), {}, digests)), "data_loss");
}

/// Two batches around a plain chunk; the second batch is stored raw.
struct BatchBlob {
  std::string first = std::string(600, 'a') + std::string(700, 'b') + std::string(50, 'c');
  std::string second = "0123456789";
  std::string packed = Compress(codec::Algorithm::kZstd, first);
  std::vector<CiRecord> records;
  std::vector<BatchContext> contexts;

  BatchBlob() {
    const auto member = [&](std::uint64_t at, std::uint64_t offset, std::uint32_t size,
                            std::uint32_t batch, std::uint32_t inside) {
      records.push_back({.compressed_offset = at,
                         .uncompressed_offset = offset,
                         .uncompressed_size = size,
                         .compressed = true,
                         .batch = true,
                         .batch_index = batch,
                         .offset_in_batch = inside});
    };
    member(0, 0, 600, 0, 0);
    member(0, 4096, 700, 0, 600);
    member(0, 8192, 50, 0, 1300);
    records.push_back({.compressed_offset = packed.size(),
                       .compressed_size = 5000,
                       .uncompressed_offset = 12288,
                       .uncompressed_size = 5000,
                       .crc32c = 99});
    member(packed.size() + 5000, 20480, 4, 1, 0);
    member(packed.size() + 5000, 24576, 6, 1, 4);
    contexts = {{static_cast<std::uint32_t>(packed.size()), 1350}, {10, 10}};
  }
  MapResult Map() const {
    const auto array = EncodeCiArray(records, contexts);
    if (!array) return array.error();
    return MakeRafsBlobMap(*array,
                           ExpectFor(*array, static_cast<std::uint32_t>(records.size()),
                                     kBlobAligned | kBlobCiV2 | kBlobBatch),
                           nullptr);
  }
};

TEST(MapTest, BatchBlob) {
  const BatchBlob blob;
  const auto map = blob.Map();
  ASSERT_TRUE(map.ok()) << map.error().ToString();
  const BlobMap& m = **map;
  EXPECT_EQ(m.chunk_count(), 6U);
  ASSERT_EQ(m.unit_count(), 3U);
  EXPECT_EQ(m.ChunksOfUnit(0), (std::pair{0U, 3U}));
  EXPECT_EQ(m.ChunksOfUnit(1), (std::pair{3U, 4U}));
  EXPECT_EQ(m.ChunksOfUnit(2), (std::pair{4U, 6U}));
  EXPECT_EQ(m.ChunkAt(2).unit, 0U);
  EXPECT_EQ(m.ChunkAt(2).offset_in_unit, 1300U);
  EXPECT_EQ(m.ChunkAt(3).unit, 1U);
  EXPECT_EQ(m.ChunkAt(3).crc32c, 99U);
  EXPECT_EQ(m.ChunkAt(5).unit, 2U);
  EXPECT_EQ(m.UnitAt(0).uncompressed_size, 1350U);
  EXPECT_EQ(m.UnitAt(2).compressed_offset, blob.packed.size() + 5000);
  std::string out(1350, '\0');
  ASSERT_TRUE(m.Decode(0, AsBytes(blob.packed), std::as_writable_bytes(std::span(out))).ok());
  EXPECT_EQ(out, blob.first);
  out.resize(10);
  ASSERT_TRUE(m.Decode(2, AsBytes(blob.second), std::as_writable_bytes(std::span(out))).ok());
  EXPECT_EQ(out, blob.second);
}

TEST(MapTest, BatchBlobsThatDoNotFitTogether) {
  const auto with = [](const std::function<void(BatchBlob&)>& change) {
    BatchBlob blob;
    change(blob);
    return Outcome(blob.Map());
  };
  EXPECT_EQ(with([](auto&) {}), "ok");
  EXPECT_EQ(with([](auto& b) { b.records[2].offset_in_batch = 1301; }), "data_loss");
  EXPECT_EQ(with([](auto& b) { b.records[2].offset_in_batch = 0xFFFF'FFFF; }), "data_loss");
  EXPECT_EQ(with([](auto& b) { b.contexts[0].compressed_size = 0; }), "data_loss");
  EXPECT_EQ(with([](auto& b) { b.contexts[0].uncompressed_size = kMaxUnitBytes + 1; }),
            "data_loss");
  EXPECT_EQ(with([](auto& b) { b.contexts[0].compressed_size += 1; }), "data_loss");  // overlap
  EXPECT_EQ(with([](auto& b) { b.records[2].compressed_offset = 3; }), "data_loss");
  EXPECT_EQ(with([](auto& b) { b.records[5].compressed_offset += 1; }), "data_loss");
  EXPECT_EQ(with([](auto& b) { b.contexts.resize(7); }), "data_loss");  // more than chunks
}

TEST(MapTest, UnknownV2FlagsAreRefused) {
  const BatchBlob blob;
  std::string array = *EncodeCiArray(blob.records, blob.contexts);
  const auto expect = ExpectFor(array, 6, kBlobAligned | kBlobCiV2 | kBlobBatch);
  for (const char flag : {'\x02', '\x08', '\x20', '\x80'}) {
    std::string changed = array;
    changed[3 * 24 + 7] = static_cast<char>(changed[3 * 24 + 7] | flag);
    EXPECT_EQ(Outcome(MakeRafsBlobMap(changed, expect, nullptr)), "unsupported");
  }
}

TEST(MapTest, FlippedBytesNeverBreakTheContract) {
  const BatchBlob blob;
  const std::string array = *EncodeCiArray(blob.records, blob.contexts);
  const auto expect = ExpectFor(array, 6, kBlobAligned | kBlobCiV2 | kBlobBatch);
  std::mt19937 random(5);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string changed = array;
    changed[random() % changed.size()] = static_cast<char>(random());
    const auto map = MakeRafsBlobMap(changed, expect, nullptr);
    if (!map) continue;
    ++accepted;
    const BlobMap& m = **map;
    std::uint64_t end = 0;
    for (std::uint32_t i = 0; i < m.chunk_count(); ++i) {
      const Chunk c = m.ChunkAt(i);
      ASSERT_GE(c.offset, end);
      end = c.offset + c.size;
      ASSERT_LE(end, m.uncompressed_size());
      const Unit u = m.UnitAt(c.unit);
      ASSERT_LE(std::uint64_t{c.offset_in_unit} + c.size, u.uncompressed_size);
      ASSERT_LE(u.compressed_offset + u.compressed_size, m.compressed_size());
      ASSERT_EQ(m.FindChunk(c.offset), i);
      const auto [first, last] = m.ChunksOfUnit(c.unit);
      ASSERT_TRUE(first <= i && i < last);
    }
  }
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace davit::storage
