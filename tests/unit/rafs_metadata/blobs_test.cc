// Blob table, chunk table and prefetch table.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>

#include "tests/unit/rafs_metadata/helpers.h"

namespace davit::rafs {
namespace {

using storage::BlobFeature;
using testing::RawImage;

class BlobsTest : public ::testing::Test {
 protected:
  BlobsTest() {
    const auto root = raw_.ReserveBlock();
    raw_.PutDir(root, root, {});
  }
  v6::ChunkRecord& AddChunk(std::uint32_t blob, std::uint32_t index, char digest) {
    v6::ChunkRecord record{};
    std::memset(record.digest, digest, sizeof record.digest);
    record.blob_index = blob;
    record.chunk_index = index;
    record.uncompressed_offset = std::uint64_t{index} * 8192;
    record.uncompressed_size = 5000 + index;
    raw_.chunks.push_back(record);
    return raw_.chunks.back();
  }
  RawImage raw_{8192};
};

TEST_F(BlobsTest, ManyBlobs) {
  for (std::uint32_t i = 0; i < v6::kMaxBlobs; ++i) raw_.AddBlob(i, std::uint64_t{i} << 20);
  const auto m = OpenBytes(raw_.Build());
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  ASSERT_EQ((*m)->blobs().size(), v6::kMaxBlobs);
  EXPECT_EQ((*m)->blobs()[253].id.value, RawImage::BlobIdOf(253));
  EXPECT_EQ((*m)->blobs()[253].ci.chunk_count, 253U);
  raw_.AddBlob(1, 1 << 20);
  EXPECT_EQ(Outcome(OpenBytes(raw_.Build())), "data_loss");
}

TEST_F(BlobsTest, NoBlobAtAll) {
  const auto m = OpenBytes(raw_.Build());
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  EXPECT_TRUE((*m)->blobs().empty());
  EXPECT_EQ(Outcome((*m)->Digests(0)), "not_found");
}

TEST_F(BlobsTest, TheBlobThatHoldsTheBootstrapGetsItsId) {
  auto& own = raw_.AddBlob(1, 1 << 20);
  std::memset(own.blob_id, 'x', sizeof own.blob_id);
  raw_.AddBlob(1, 1 << 20);
  EXPECT_EQ(Outcome(OpenBytes(raw_.Build())), "failed_precondition");
  const auto id = *storage::BlobId::Parse(std::string(64, 'a'));
  const auto m = OpenBytes(raw_.Build(), id);
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  EXPECT_EQ((*m)->blobs()[0].id, id);
  EXPECT_EQ((*m)->blobs()[0].ci.id, id);
  // Replacing comes before the check for duplicates.
  const auto other = *storage::BlobId::Parse(RawImage::BlobIdOf(1));
  EXPECT_EQ(Outcome(OpenBytes(raw_.Build(), other)), "data_loss");
}

TEST_F(BlobsTest, SizeOfTheDataRegion) {
  raw_.AddBlob(4, 1 << 20).compressed_size = 777;
  auto& tar = raw_.AddBlob(4, 1 << 20);
  tar.features |= storage::kBlobCapTarToc | storage::kBlobTarHeader;
  tar.ci_offset = 5000;
  auto& no_header = raw_.AddBlob(4, 1 << 20);
  no_header.features |= storage::kBlobCapTarToc;
  no_header.ci_offset = 5000;
  auto& empty = raw_.AddBlob(0, 0);
  empty.features |= storage::kBlobCapTarToc | storage::kBlobTarHeader;
  empty.ci_offset = 0;
  const auto m = OpenBytes(raw_.Build());
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  EXPECT_EQ((*m)->blobs()[0].ci.data_size, 777U);
  EXPECT_EQ((*m)->blobs()[1].ci.data_size, 5000U - 512);
  EXPECT_EQ((*m)->blobs()[2].ci.data_size, 5000U);
  EXPECT_EQ((*m)->blobs()[3].ci.data_size, 0U);
}

struct BadBlob {
  const char* name;
  std::function<void(v6::BlobTableEntry&)> change;
  const char* outcome;
  const char* text;  // what the message names
};

class BadBlobTest : public BlobsTest, public ::testing::WithParamInterface<BadBlob> {};

TEST_P(BadBlobTest, IsRefusedByName) {
  GetParam().change(raw_.AddBlob(10, 1 << 20));
  const auto m = OpenBytes(raw_.Build());
  EXPECT_EQ(Outcome(m), GetParam().outcome);
  ASSERT_FALSE(m.ok());
  EXPECT_NE(m.error().message().find(GetParam().text), std::string::npos) << m.error().message();
}

BadBlob Feature(const char* name, std::uint32_t bit, const char* text) {
  return {name, [bit](auto& b) { b.features |= bit; }, "unsupported", text};
}

INSTANTIATE_TEST_SUITE_P(
    All, BadBlobTest,
    ::testing::Values(
        Feature("zran", storage::kBlobZran, "zran"), Feature("tarfs", storage::kBlobTarfs, "tarfs"),
        Feature("encrypted", storage::kBlobEncrypted, "encryption"),
        Feature("external", storage::kBlobExternal, "external"),
        Feature("separate", storage::kBlobSeparate, "separate blob"),
        Feature("unknown", 0x8000, "unknown features 0x8000"),
        BadBlob{"cipher", [](auto& b) { b.cipher = 1; }, "unsupported", "encryption"},
        BadBlob{"unaligned", [](auto& b) { b.features = 0; }, "data_loss", "aligned"},
        BadBlob{"batch_v1", [](auto& b) { b.features |= storage::kBlobBatch; }, "data_loss", "V2"},
        BadBlob{"index", [](auto& b) { b.blob_index = 1; }, "data_loss", "index"},
        BadBlob{"chunk_size", [](auto& b) { b.chunk_size = 4096; }, "data_loss", "chunk size"},
        BadBlob{"compressor", [](auto& b) { b.compressor = 4; }, "data_loss", "compressor"},
        BadBlob{"digester", [](auto& b) { b.digester = 2; }, "data_loss", "digest"},
        BadBlob{"ci_size", [](auto& b) { ++b.ci_uncompressed_size; }, "data_loss", "chunk info"},
        BadBlob{"ci_grown", [](auto& b) { ++b.ci_compressed_size; }, "data_loss", "larger"},
        BadBlob{"chunks", [](auto& b) { b.chunk_count = (1 << 24) + 1; }, "data_loss", "limits"},
        BadBlob{"big", [](auto& b) { b.uncompressed_size = 1ULL << 45; }, "data_loss", "limits"},
        BadBlob{"ci_inside",
                [](auto& b) {
                  b.features |= storage::kBlobCapTarToc | storage::kBlobTarHeader;
                  b.ci_offset = 100;
                },
                "data_loss", "inside"},
        BadBlob{"id", [](auto& b) { b.blob_id[3] = '/'; }, "data_loss", "hex"},
        BadBlob{"id_case", [](auto& b) { b.blob_id[3] = 'A'; }, "data_loss", "hex"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(BlobsTest, DeviceTableMustAgree) {
  raw_.AddBlob(1, 1 << 20);
  std::string image = raw_.Build();
  image[v6::kDeviceTableOffset + 5] = 'f';
  EXPECT_EQ(Outcome(OpenBytes(image)), "data_loss");
}

TEST_F(BlobsTest, TwoEntriesOfOneBlobAreRefused) {
  raw_.AddBlob(1, 1 << 20);
  std::memcpy(raw_.AddBlob(1, 1 << 20).blob_id, RawImage::BlobIdOf(0).data(), 64);
  EXPECT_EQ(Outcome(OpenBytes(raw_.Build())), "data_loss");
}

TEST_F(BlobsTest, DigestsByBlobAndIndex) {
  raw_.AddBlob(10, 1 << 20);
  raw_.AddBlob(3, 1 << 20);
  // Not in order of blob or index, and with gaps, as merged images have them.
  AddChunk(1, 2, 'c').crc32c = 0x1234;
  raw_.chunks.back().flags = v6::kChunkHasCrc32c;
  AddChunk(0, 7, 'd');
  AddChunk(0, 0, 'a');
  AddChunk(0, 9, 'e');
  AddChunk(0, 1, '\0');
  AddChunk(0, 7, 'd');  // says the same twice
  const auto m = OpenBytes(raw_.Build());
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  const auto zero = *(*m)->Digests(0);
  const auto one = *(*m)->Digests(1);
  const auto first_byte = [](const storage::ChunkDigests::Entry& entry) {
    return entry.digest ? std::string(1, static_cast<char>(entry.digest->bytes[0])) : "none";
  };
  EXPECT_EQ(first_byte(zero->Get(0)), "a");
  EXPECT_EQ(first_byte(zero->Get(7)), "d");
  EXPECT_EQ(first_byte(zero->Get(9)), "e");
  EXPECT_EQ(first_byte(zero->Get(1)), "none");  // all zeros
  EXPECT_TRUE(zero->Get(1).place);
  for (const std::uint32_t missing : {2U, 6U, 8U, 10U, 0xFFFF'FFFFU}) {
    EXPECT_EQ(first_byte(zero->Get(missing)), "none");
    EXPECT_FALSE(zero->Get(missing).place);
  }
  EXPECT_EQ(first_byte(one->Get(2)), "c");
  EXPECT_EQ(one->Get(2).crc32c, 0x1234U);
  EXPECT_EQ(one->Get(2).place, (storage::ChunkDigests::Place{2 * 8192, 5002}));
  EXPECT_FALSE(one->Get(0).digest);
  EXPECT_FALSE(zero->Get(0).crc32c);
}

TEST_F(BlobsTest, DigestsOutliveTheMetadata) {
  raw_.AddBlob(10, 1 << 20);
  AddChunk(0, 0, 'a');
  auto m = OpenBytes(raw_.Build());
  ASSERT_TRUE(m.ok());
  const auto digests = *(*m)->Digests(0);
  m->reset();
  EXPECT_TRUE(digests->Get(0).digest);
}

TEST_F(BlobsTest, ContradictionsAndUnknownChunksAreDamage) {
  raw_.AddBlob(10, 1 << 20);
  const auto outcome = [&] { return Outcome((*OpenBytes(raw_.Build()))->Digests(0)); };
  AddChunk(0, 5, 'a');
  EXPECT_EQ(outcome(), "ok");
  AddChunk(0, 5, 'b');
  EXPECT_EQ(outcome(), "data_loss");
  raw_.chunks.pop_back();
  AddChunk(0, 5, 'a').uncompressed_size = 1;
  EXPECT_EQ(outcome(), "data_loss");
  raw_.chunks.pop_back();
  AddChunk(0, 10, 'c');
  EXPECT_EQ(outcome(), "data_loss");
  raw_.chunks.pop_back();
  AddChunk(1, 0, 'c');
  EXPECT_EQ(outcome(), "data_loss");
}

TEST_F(BlobsTest, ChunkDictionariesKeepTheIndicesOfTheirBlob) {
  auto& dict = raw_.AddBlob(1, 1 << 30);
  dict.features |= storage::kBlobChunkDict;
  dict.ci_uncompressed_size = dict.ci_compressed_size = 16 * 5000;
  AddChunk(0, 4321, 'z').uncompressed_offset = 4096;
  const auto m = OpenBytes(raw_.Build());
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  EXPECT_TRUE((*(*m)->Digests(0))->Get(4321).digest);
}

TEST_F(BlobsTest, PrefetchTable) {
  const auto file = raw_.Add(raw_.File(0, {}));
  raw_.prefetch = {static_cast<std::uint32_t>(file), v6::kRootNid, 0xFFFF'FFF0, 0, v6::kRootNid};
  const auto m = OpenBytes(raw_.Build());
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  // The unreachable entry is left out, the zero ends the list.
  EXPECT_EQ((*m)->PrefetchList(), (std::vector<InodeId>{{file}, {v6::kRootNid}}));
  std::string image = raw_.Build();
  testing::Patch(image, v6::kExtensionOffset + 40, std::uint64_t{0});
  const auto without = OpenBytes(image);
  ASSERT_TRUE(without.ok()) << without.error().ToString();
  EXPECT_TRUE((*without)->PrefetchList().empty());
}

}  // namespace
}  // namespace davit::rafs
