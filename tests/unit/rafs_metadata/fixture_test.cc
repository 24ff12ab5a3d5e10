// Reading an image that another implementation has made: tree, attributes, content.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/base/fd.h"
#include "rafs/metadata/metadata.h"
#include "storage/blobmeta/toc.h"
#include "tests/support/fixtures/fixtures.h"

namespace davit::rafs {
namespace {

constexpr char kBootstrap[] = "nydus/v6/rafs-v6-2.2.boot";
constexpr char kBlob[] =
    "nydus/v6/be7d77eeb719f70884758d1aa800ed0fb09d701aaec469964e9d54325f0d5fef";

/// A file's content, every chunk decoded and verified.
Result<std::string> ReadContent(const Metadata& metadata, const storage::BlobMap& map, Bytes blob,
                                InodeId file) {
  std::vector<Extent> extents;
  DAVIT_TRY(metadata.Extents(file, 0, ~std::uint64_t{0}, extents));
  std::string out;
  for (const Extent& extent : extents) {
    std::string piece;
    std::uint64_t at = extent.blob_offset;
    while (piece.size() < extent.length) {
      const auto chunk = map.ChunkAt(map.FindChunk(at));
      const auto unit = map.UnitAt(chunk.unit);
      std::string data(unit.uncompressed_size, '\0');
      DAVIT_TRY_ASSIGN(const Bytes stored,
                       SubBytes(blob, unit.compressed_offset, unit.compressed_size, "unit"));
      DAVIT_TRY(map.Decode(chunk.unit, stored, std::as_writable_bytes(std::span(data))));
      const auto bytes = AsBytes(data).subspan(chunk.offset_in_unit, chunk.size);
      DAVIT_TRY(storage::VerifyChunk(map, chunk, bytes));
      piece += AsText(bytes);
      at = AlignUp(chunk.offset + chunk.size, 4096);
    }
    out += piece.substr(0, extent.length);
  }
  return out;
}

TEST(FixtureTest, ReadsTreeAndVerifiedContentOfAPlainImage) {
  DAVIT_FIXTURE_OR_SKIP(boot, kBootstrap);
  DAVIT_FIXTURE_OR_SKIP(blob_path, kBlob);
  const auto metadata = Metadata::OpenFile(boot);
  ASSERT_TRUE(metadata.ok()) << metadata.error().ToString();
  const Metadata& m = **metadata;
  EXPECT_EQ(m.info().compressor, codec::Algorithm::kZstd);
  EXPECT_EQ(m.info().digester, DigestAlgorithm::kBlake3);
  EXPECT_EQ(m.info().inodes, 3U);
  EXPECT_EQ(m.info().chunk_size, 1U << 20);
  EXPECT_TRUE(m.info().explicit_uid_gid);
  ASSERT_EQ(m.blobs().size(), 1U);
  const BlobRecord& record = m.blobs()[0];
  EXPECT_EQ(record.ci.data_size, 7802U);

  const auto blob = ReadFile(blob_path);
  ASSERT_TRUE(blob.ok());
  const auto stored = SubBytes(AsBytes(*blob), record.ci.ci_offset,
                               record.ci.ci_compressed_size + storage::kCiHeaderSize, "ci");
  ASSERT_TRUE(stored.ok());
  auto array = storage::DecodeStoredCi(*stored, record.ci);
  ASSERT_TRUE(array.ok()) << array.error().ToString();
  const auto map = storage::MakeRafsBlobMap(*array, record.ci, *m.Digests(0));
  ASSERT_TRUE(map.ok()) << map.error().ToString();
  ASSERT_EQ((*map)->chunk_count(), 2U);
  EXPECT_EQ((*map)->UnitAt(1).compressed_offset, 4828U);
  EXPECT_EQ((*map)->ChunkAt(1).offset, 20480U);
  EXPECT_TRUE((*map)->ChunkAt(0).digest->Hex().starts_with("f7e2735f"));

  struct Expected {
    const char *name, *sha256;
    std::uint64_t nid, size;
    std::uint32_t nsec;
  };
  for (const Expected& e :
       {Expected{"lib.rs", "1810eba864521293bb0d6b55a3c82318d4d89f294ed761c456d9088a17de0c69", 133,
                 16931, 628661334},
        Expected{"sync_io.rs", "e629ab260ff0dc02a24648a3e0dd8c13a5daf233d535c330e3201925f5eeff96",
                 136, 13400, 628993084}}) {
    const auto inode = LookupPath(m, std::string("/") + e.name);
    ASSERT_TRUE(inode.ok());
    EXPECT_EQ(inode->value, e.nid);
    const auto attributes = m.Stat(*inode);
    ASSERT_TRUE(attributes.ok());
    EXPECT_EQ(attributes->mode, S_IFREG | 0644U);
    EXPECT_EQ(attributes->size, e.size);
    EXPECT_EQ(attributes->mtime, 1676819553);
    EXPECT_EQ(attributes->mtime_nsec, e.nsec);
    const auto content = ReadContent(m, **map, AsBytes(*blob), *inode);
    ASSERT_TRUE(content.ok()) << content.error().ToString();
    EXPECT_EQ(Digest::Of(DigestAlgorithm::kSha256, AsBytes(*content)).Hex(), e.sha256);
  }
  std::vector<std::string> paths;
  ASSERT_TRUE(Walk(m, m.root(), [&](const std::string& path, const Attributes&) -> Status {
                paths.push_back(path);
                return {};
              }).ok());
  EXPECT_EQ(paths, (std::vector<std::string>{"/", "/lib.rs", "/sync_io.rs"}));
}

TEST(FixtureTest, TableOfContentsOfAPlainImage) {
  DAVIT_FIXTURE_OR_SKIP(boot, kBootstrap);
  DAVIT_FIXTURE_OR_SKIP(blob_path, kBlob);
  const auto metadata = Metadata::OpenFile(boot);
  ASSERT_TRUE(metadata.ok());
  const BlobRecord& record = (*metadata)->blobs()[0];
  const auto blob = ReadFile(blob_path);
  ASSERT_TRUE(blob.ok());
  const Bytes bytes = AsBytes(*blob);
  EXPECT_EQ(Digest::Of(DigestAlgorithm::kSha256, bytes.last(record.toc_size)), record.toc_digest);
  const auto toc = storage::Toc::ParseTail(bytes.last(record.toc_size), bytes.size());
  ASSERT_TRUE(toc.ok()) << toc.error().ToString();
  ASSERT_EQ(toc->entries.size(), 4U);
  for (const auto& entry : toc->entries) {
    const auto section =
        storage::ExtractSection(entry, bytes.subspan(entry.offset, entry.stored_size), 1U << 20);
    ASSERT_TRUE(section.ok()) << section.error().ToString();
  }
  // The digests in the blob and those in the bootstrap are the same.
  const auto* digests = toc->Find(storage::kSectionDigest);
  ASSERT_NE(digests, nullptr);
  for (std::uint32_t i = 0; i < 2; ++i) {
    const auto entry = (*(*metadata)->Digests(0))->Get(i);
    ASSERT_TRUE(entry.digest);
    EXPECT_EQ(AsText(std::span(entry.digest->bytes)),
              AsText(bytes.subspan(digests->offset + 32 * i, 32)));
  }
}

}  // namespace
}  // namespace davit::rafs
