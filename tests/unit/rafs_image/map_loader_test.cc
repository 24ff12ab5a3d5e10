// Where a blob's map comes from, and how little is fetched for it.

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "storage/blobmeta/toc.h"
#include "tests/support/raw_image/raw_image.h"
#include "tests/unit/rafs_image/fakes.h"

namespace davit::rafs {
namespace {

using testing::RawImage;

/// A blob of three raw chunks with chunk info, digests and a table of contents, and a bootstrap
/// whose chunk table knows some of the chunks.
class MapLoaderTest : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kChunks = 3;

  MapLoaderTest() : dir_(*TempDir::Create("rafs-map")) {
    std::vector<storage::CiRecord> records;
    for (std::uint32_t i = 0; i < kChunks; ++i) {
      contents_.push_back(std::string(100 + i, static_cast<char>('a' + i)));
      records.push_back({.compressed_offset = blob_.size(),
                         .compressed_size = 100 + i,
                         .uncompressed_offset = i * 4096,
                         .uncompressed_size = 100 + i});
      blob_ += contents_.back();
    }
    Section(storage::kSectionData, blob_.size(), "");
    array_ = *storage::EncodeCiArray(records, {});
    header_.record_count = kChunks;
    header_.offset = blob_.size();
    header_.compressed_size = header_.uncompressed_size = array_.size();
    Add(storage::kSectionCi, array_, storage::EncodeCiHeader(header_));
    std::string digests;
    for (const auto& content : contents_) digests += AsText(DigestOf(content).bytes);
    Add(storage::kSectionDigest, digests, "");
    const std::string end = toc_.Encode();
    toc_size_ = end.size();
    toc_digest_ = Digest::Of(DigestAlgorithm::kSha256, AsBytes(end));
    blob_ += end;
  }
  static Digest DigestOf(const std::string& content) {
    return Digest::Of(DigestAlgorithm::kBlake3, AsBytes(content));
  }
  void Section(std::string_view name, std::uint64_t size, std::string_view) {
    blob_ += storage::EncodeSectionHeader(name, size);
  }
  void Add(std::string_view name, const std::string& content, const std::string& behind) {
    storage::TocEntry entry;
    entry.name = name;
    entry.offset = blob_.size();
    entry.stored_size = entry.uncompressed_size = content.size();
    entry.digest = Digest::Of(DigestAlgorithm::kSha256, AsBytes(content));
    toc_.entries.push_back(entry);
    blob_ += content + behind;
    Section(name, content.size() + behind.size(), "");
  }

  /// Opens a bootstrap whose chunk table has records of the first `known` chunks.
  void Open(std::uint32_t known, bool inlined = true) {
    RawImage raw;
    auto& entry = raw.AddBlob(kChunks, kChunks * 4096);
    entry.compressor = 0;
    entry.features |= storage::kBlobCapTarToc | storage::kBlobTarHeader | storage::kBlobToc |
                      (inlined ? storage::kBlobInlinedDigest : 0U);
    entry.compressed_size = blob_.size();
    entry.ci_offset = header_.offset;
    entry.toc_size = static_cast<std::uint32_t>(toc_size_);
    std::memcpy(entry.toc_digest, toc_digest_.bytes.data(), sizeof entry.toc_digest);
    for (std::uint32_t i = 0; i < known; ++i) {
      v6::ChunkRecord record{};
      std::memcpy(record.digest, DigestOf(contents_[i]).bytes.data(), sizeof record.digest);
      record.chunk_index = i;
      record.uncompressed_offset = i * 4096;
      record.uncompressed_size = 100 + i;
      raw.chunks.push_back(record);
    }
    const auto root = raw.ReserveBlock();
    raw.PutDir(root, root, {});
    auto bytes = std::make_shared<const std::string>(raw.Build());
    const Bytes view = AsBytes(*bytes);
    auto metadata = Metadata::Open(view, std::move(bytes));
    ASSERT_TRUE(metadata.ok()) << metadata.error().ToString();
    metadata_ = *std::move(metadata);
    source_ = std::make_shared<FakeSource>(blob_);
  }
  Result<std::shared_ptr<const storage::BlobMap>> Load(std::uint32_t blob = 0) {
    return MapLoader(metadata_, blob, source_, dir_.path())({});
  }
  std::vector<std::string> Names() const { return ListDirectory(dir_.path()).value(); }
  std::string LocalPath() const { return dir_.path() + "/" + RawImage::BlobIdOf(0) + ".blob.meta"; }
  void ExpectVerifies(const storage::BlobMap& map, std::uint32_t chunks) {
    for (std::uint32_t i = 0; i < chunks; ++i) {
      const auto chunk = map.ChunkAt(i);
      const auto unit = map.UnitAt(chunk.unit);
      const Bytes data = AsBytes(blob_).subspan(unit.compressed_offset, unit.compressed_size);
      EXPECT_TRUE(storage::VerifyChunk(map, chunk, data).ok()) << i;
    }
  }

  TempDir dir_;
  std::vector<std::string> contents_;
  std::string blob_, array_;
  storage::CiHeader header_{};
  storage::Toc toc_;
  std::uint64_t toc_size_ = 0;
  Digest toc_digest_;
  std::shared_ptr<const Metadata> metadata_;
  std::shared_ptr<FakeSource> source_;
};

// A table takes its share of the process's memory before it is read, and keeps what it needs.
TEST_F(MapLoaderTest, TablesHaveOneBudget) {
  Open(1);
  const auto load = [&](const std::shared_ptr<TableMemory>& memory) {
    return MapLoader(metadata_, 0, source_, dir_.path(), memory)({});
  };
  const auto refused =
      load(std::make_shared<TableMemory>(TableMemory::Options{.limit_bytes = 100}));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), Code::kResourceExhausted);
  EXPECT_NE(refused.error().message().find(RawImage::BlobIdOf(0)), std::string::npos);
  EXPECT_TRUE(source_->requests.empty());  // before anything is fetched

  const auto memory = std::make_shared<TableMemory>(
      TableMemory::Options{.limit_bytes = 20'000, .patience = std::chrono::milliseconds(1)});
  auto map = load(memory);
  ASSERT_TRUE(map.ok()) << map.error().ToString();
  EXPECT_EQ(memory->used(), array_.size() + kChunks * 32);
  ExpectVerifies(**map, kChunks);
  const auto others = memory->Take({}, 12'000, "others");
  ASSERT_TRUE(others.ok());
  EXPECT_EQ(load(memory).error().code(), Code::kResourceExhausted);
  map = Error(Code::kNotFound, "gone");
  EXPECT_EQ(memory->used(), 12'000U);
}

// A file beside the bootstrap comes from the image, too.
TEST_F(MapLoaderTest, ALocalFileOfAnotherSizeIsNotReadIntoMemory) {
  Open(kChunks);
  ASSERT_TRUE(WriteFileAtomic(LocalPath(), AsBytes(std::string("x"))).ok());
  ASSERT_EQ(::truncate(LocalPath().c_str(), 1LL << 40), 0);
  ASSERT_TRUE(Load().ok());
  EXPECT_EQ(source_->requests.size(), 1U);
}

TEST_F(MapLoaderTest, OneRangedReadOfTheBlob) {
  Open(kChunks);
  const auto map = Load();
  ASSERT_TRUE(map.ok()) << map.error().ToString();
  ASSERT_EQ(source_->requests.size(), 1U);
  EXPECT_EQ(source_->requests[0], (ByteRange{header_.offset, array_.size() + 4096}));
  ExpectVerifies(**map, kChunks);
  EXPECT_EQ(Outcome(Load(1)), "not_found");
}

TEST_F(MapLoaderTest, NoRequestWithALocalFile) {
  Open(kChunks);
  ASSERT_TRUE(
      WriteFileAtomic(LocalPath(), AsBytes(storage::EncodeLocalCi(AsBytes(array_), header_))).ok());
  const auto map = Load();
  ASSERT_TRUE(map.ok()) << map.error().ToString();
  EXPECT_TRUE(source_->requests.empty());
  ExpectVerifies(**map, kChunks);
}

TEST_F(MapLoaderTest, ADamagedLocalFileIsReplacedByTheBlob) {
  Open(kChunks);
  for (const std::string& damaged :
       {std::string(), std::string(8192, '\0'), std::string("short"),
        storage::EncodeLocalCi(AsBytes(std::string(array_.size(), '\0')), header_)}) {
    source_->requests.clear();
    for (const std::string& name : Names()) {
      ASSERT_EQ(::unlink((dir_.path() + "/" + name).c_str()), 0);
    }
    ASSERT_TRUE(WriteFileAtomic(LocalPath(), AsBytes(damaged)).ok());
    const auto map = Load();
    ASSERT_TRUE(map.ok()) << map.error().ToString();
    EXPECT_EQ(source_->requests.size(), 1U);
  }
}

TEST_F(MapLoaderTest, ChunksThatTheBootstrapDoesNotKnowGetTheBlobsOwnDigests) {
  Open(1);
  const auto map = Load();
  ASSERT_TRUE(map.ok()) << map.error().ToString();
  EXPECT_EQ(source_->requests.size(), 3U);  // chunk info, table of contents, digests
  ExpectVerifies(**map, kChunks);
}

// A complete blob needs no registry after a restart.
TEST_F(MapLoaderTest, WhatWasFetchedIsKept) {
  Open(1);
  ASSERT_TRUE(Load().ok());
  source_->requests.clear();
  const auto again = Load();
  ASSERT_TRUE(again.ok()) << again.error().ToString();
  EXPECT_TRUE(source_->requests.empty());
  ExpectVerifies(**again, kChunks);
  // What a crash left of it is replaced.
  for (const std::string& damage : {std::string(), std::string("short"), std::string(1, '\1')}) {
    for (const std::string& name : Names()) {
      const std::string path = dir_.path() + "/" + name;
      std::string content = *ReadFile(path);
      if (damage.size() == 1) {
        for (char& c : content) c = static_cast<char>(c ^ damage[0]);
      } else {
        content = damage;
      }
      ASSERT_TRUE(ReplaceFile(path, AsBytes(content)).ok());
    }
    source_->requests.clear();
    const auto map = Load();
    ASSERT_TRUE(map.ok()) << map.error().ToString();
    EXPECT_EQ(source_->requests.size(), 3U);
    ExpectVerifies(**map, kChunks);
  }
}

TEST_F(MapLoaderTest, WithoutInlinedDigestsTheRestStaysUnverifiable) {
  Open(1, false);
  const auto map = Load();
  ASSERT_TRUE(map.ok()) << map.error().ToString();
  EXPECT_EQ(source_->requests.size(), 1U);
  EXPECT_TRUE((*map)->ChunkAt(0).digest);
  EXPECT_FALSE((*map)->ChunkAt(1).digest);
}

TEST_F(MapLoaderTest, OwnDigestsAreTakenOnlyWithAnUnbrokenChainOfTrust) {
  Open(1);
  const auto* digests = toc_.Find(storage::kSectionDigest);
  for (const std::size_t at : {digests->offset + 40, blob_.size() - toc_size_ + 30}) {
    source_->content = blob_;
    source_->content[at] ^= 1;
    const auto map = Load();
    ASSERT_TRUE(map.ok()) << map.error().ToString();
    EXPECT_TRUE((*map)->ChunkAt(0).digest);
    EXPECT_FALSE((*map)->ChunkAt(1).digest);
  }
  // A chunk info that exchanges two chunks which the chunk table does not place.
  source_->content = blob_;
  std::swap_ranges(source_->content.begin() + static_cast<std::ptrdiff_t>(header_.offset) + 24,
                   source_->content.begin() + static_cast<std::ptrdiff_t>(header_.offset) + 32,
                   source_->content.begin() + static_cast<std::ptrdiff_t>(header_.offset) + 40);
  const auto map = Load();
  EXPECT_TRUE(!map.ok() || !(*map)->ChunkAt(1).digest);
}

TEST_F(MapLoaderTest, DamagedChunkInfoOfTheBlobIsAnError) {
  Open(kChunks);
  source_->content[header_.offset + array_.size()] ^= 1;
  const auto map = Load();
  EXPECT_EQ(Outcome(map), "data_loss");
  EXPECT_NE(map.error().message().find("fake blob"), std::string::npos);
}

}  // namespace
}  // namespace davit::rafs
