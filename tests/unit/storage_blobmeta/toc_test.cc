#include "storage/blobmeta/toc.h"

#include <gtest/gtest.h>

#include <random>

#include "common/base/fd.h"
#include "tests/support/fixtures/fixtures.h"
#include "tests/unit/storage_blobmeta/helpers.h"

namespace davit::storage {
namespace {

constexpr char kBlob[] =
    "nydus/v6/be7d77eeb719f70884758d1aa800ed0fb09d701aaec469964e9d54325f0d5fef";

/// A blob of one section, its table of contents and its header.
std::string SmallBlob(const std::string& section, const TocEntry& entry) {
  Toc toc;
  toc.entries = {entry};
  return section + toc.Encode();
}

TocEntry Entry(std::string name, std::uint64_t size) {
  TocEntry entry;
  entry.name = std::move(name);
  entry.stored_size = entry.uncompressed_size = size;
  return entry;
}

TEST(TocTest, RoundTrip) {
  const std::string section(1000, 's');
  TocEntry entry = Entry(std::string(kSectionBootstrap), 1000);
  entry.digest = Digest::Of(DigestAlgorithm::kSha256, AsBytes(section));
  const std::string blob = SmallBlob(section, entry);
  const auto toc = Toc::ParseTail(AsBytes(blob), blob.size());
  ASSERT_TRUE(toc.ok()) << toc.error().ToString();
  const TocEntry* found = toc->Find(kSectionBootstrap);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->digest, entry.digest);
  EXPECT_EQ(toc->Find("other"), nullptr);
  EXPECT_EQ(*ExtractSection(*found, AsBytes(section), 1000), section);
  EXPECT_EQ(Outcome(ExtractSection(*found, AsBytes(section), 999)), "resource_exhausted");
  EXPECT_EQ(Outcome(ExtractSection(*found, AsBytes(section).first(999), 1000)), "data_loss");
  std::string damaged = section;
  damaged[5] = 'x';
  EXPECT_EQ(Outcome(ExtractSection(*found, AsBytes(damaged), 1000)), "data_loss");
}

TEST(TocTest, CompressedSections) {
  const std::string section(100'000, 's');
  for (const auto& [algorithm, compression] :
       {std::pair{codec::Algorithm::kZstd, TocCompression::kZstd},
        std::pair{codec::Algorithm::kLz4Block, TocCompression::kLz4}}) {
    const std::string stored = Compress(algorithm, section);
    TocEntry entry = Entry("image.boot", stored.size());
    entry.compression = compression;
    entry.uncompressed_size = section.size();
    entry.digest = Digest::Of(DigestAlgorithm::kSha256, AsBytes(section));
    EXPECT_EQ(*ExtractSection(entry, AsBytes(stored), 1 << 20), section);
    entry.uncompressed_size += 1;
    EXPECT_EQ(Outcome(ExtractSection(entry, AsBytes(stored), 1 << 20)), "data_loss");
  }
}

TEST(TocTest, BlobsWithoutOne) {
  EXPECT_EQ(Outcome(Toc::ParseTail({}, 0)), "not_found");
  const std::string zeros(4096, '\0');
  EXPECT_EQ(Outcome(Toc::ParseTail(AsBytes(zeros), 10000)), "not_found");
  const std::string other = zeros + EncodeSectionHeader("image.blob", 5);
  EXPECT_EQ(Outcome(Toc::ParseTail(AsBytes(other), other.size())), "not_found");
}

TEST(TocTest, DamagedTables) {
  const auto outcome = [](const TocEntry& entry) {
    const std::string blob = SmallBlob(std::string(1000, 's'), entry);
    return Outcome(Toc::ParseTail(AsBytes(blob), blob.size()));
  };
  EXPECT_EQ(outcome(Entry("blob.meta", 1000)), "ok");
  EXPECT_EQ(outcome(Entry("blob.meta", 1001)), "data_loss");
  EXPECT_EQ(outcome(Entry("", 1000)), "data_loss");
  EXPECT_EQ(outcome(Entry("a/b", 1000)), "data_loss");
  TocEntry entry = Entry("blob.meta", 1000);
  entry.offset = ~0ULL;
  EXPECT_EQ(outcome(entry), "data_loss");
  entry.offset = 0;
  entry.compression = static_cast<TocCompression>(3);
  EXPECT_EQ(outcome(entry), "data_loss");
  // Some writers note the end of the data as its offset.
  TocEntry data = Entry("image.blob", 1000);
  data.offset = 1000;
  EXPECT_EQ(outcome(data), "ok");

  Toc twice;
  twice.entries = {Entry("a", 1), Entry("a", 1)};
  const std::string blob = "x" + twice.Encode();
  EXPECT_EQ(Outcome(Toc::ParseTail(AsBytes(blob), blob.size())), "data_loss");
  // Sizes that are no multiple of an entry or more than there is.
  for (const std::uint64_t size : {1ULL, 127ULL, 128ULL, 1ULL << 40}) {
    const std::string tail = EncodeSectionHeader(kSectionToc, size);
    EXPECT_EQ(Outcome(Toc::ParseTail(AsBytes(tail), tail.size())), "data_loss") << size;
  }
}

TEST(TocTest, HeadersOfEverySize) {
  for (const std::uint64_t size : {0ULL, 511ULL, (1ULL << 33) - 1, 1ULL << 33, ~0ULL}) {
    const std::string header = EncodeSectionHeader(kSectionData, size);
    ASSERT_EQ(header.size(), kTarHeaderSize);
    const auto parsed = ParseSectionHeader(AsBytes(header));
    ASSERT_TRUE(parsed.ok()) << size;
    EXPECT_EQ(parsed->size, size);
    EXPECT_EQ(parsed->name, kSectionData);
  }
  std::string header = EncodeSectionHeader(kSectionData, 5);
  EXPECT_EQ(Outcome(ParseSectionHeader(AsBytes(header).first(511))), "data_loss");
  for (const std::size_t at : {0U, 124U, 148U, 257U}) {
    std::string damaged = header;
    damaged[at] ^= 0x10;
    EXPECT_EQ(Outcome(ParseSectionHeader(AsBytes(damaged))), "data_loss") << at;
  }
}

TEST(TocTest, HeadersAreThoseOfNydus) {
  DAVIT_FIXTURE_OR_SKIP(path, kBlob);
  const auto blob = ReadFile(path);
  ASSERT_TRUE(blob.ok());
  EXPECT_EQ(blob->substr(7802, 512), EncodeSectionHeader("image.blob", 7802));
  EXPECT_EQ(blob->substr(12442, 512), EncodeSectionHeader("blob.meta", 4128));
  EXPECT_EQ(blob->substr(14042, 512), EncodeSectionHeader("rafs.blob.toc", 512));
}

TEST(TocTest, FlippedBytesNeverCrash) {
  Toc toc;
  toc.entries = {Entry("image.blob", 10), Entry("blob.meta", 20), Entry("image.boot", 30)};
  const std::string blob = std::string(100, 'x') + toc.Encode();
  std::mt19937 random(9);
  for (int round = 0; round < 20000; ++round) {
    std::string changed = blob;
    changed[100 + random() % (changed.size() - 100)] = static_cast<char>(random());
    const auto parsed = Toc::ParseTail(AsBytes(changed), changed.size());
    if (!parsed) continue;
    for (const auto& entry : parsed->entries) {
      ASSERT_LE(entry.offset + entry.stored_size, changed.size());
      static_cast<void>(
          ExtractSection(entry, AsBytes(changed).subspan(entry.offset, entry.stored_size), 4096));
    }
  }
}

}  // namespace
}  // namespace davit::storage
