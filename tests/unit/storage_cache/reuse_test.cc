// Content that is on the node already is not fetched.

#include "tests/unit/storage_cache/cache_fixture.h"

namespace davit::storage {
namespace {

class ReuseTest : public CacheFixture {
 protected:
  /// The same chunks under another id.
  static BlobSpec Twin(const FakeBlob& blob) {
    BlobSpec spec = blob.Spec();
    spec.id.value = std::string(64, 'e');
    return spec;
  }
  FakeBlob blob_{{.chunks = 50, .min_chunk = 100}};
};

TEST_F(ReuseTest, ChunksOfAnotherBlobAreCopied) {
  OpenCache();
  const auto cached = OpenBlob(blob_);
  ASSERT_TRUE(ReadAll(*cached, blob_).ok());
  ASSERT_TRUE(cache_->Flush().ok());
  const auto twin = *cache_->OpenBlob(Twin(blob_));
  ASSERT_TRUE(ReadAll(*twin, blob_).ok());
  EXPECT_EQ(blob_.source->requests().size(), 1U);
  EXPECT_EQ(cache_->stats().deduplicated_bytes, twin->progress().bytes_total);
}

TEST_F(ReuseTest, AfterARestartWhileTheOtherBlobIsNotOpen) {
  OpenCache();
  ASSERT_TRUE(ReadAll(*OpenBlob(blob_), blob_).ok());
  cache_.reset();
  OpenCache();
  const auto twin = *cache_->OpenBlob(Twin(blob_));
  ASSERT_TRUE(ReadAll(*twin, blob_).ok());
  EXPECT_EQ(blob_.source->requests().size(), 1U);
}

TEST_F(ReuseTest, AWrongHintIsNoticed) {
  OpenCache();
  std::string path;
  {
    const auto cached = OpenBlob(blob_);
    path = cached->data_path();
    ASSERT_TRUE(ReadAll(*cached, blob_).ok());
  }
  cache_.reset();
  const std::byte wrong{0x55};
  ASSERT_TRUE((*files_.Open(path))->WriteAt(RangeOf(blob_, 7).offset + 3, Bytes(&wrong, 1)).ok());
  ASSERT_TRUE((*files_.Open(path))->Truncate(RangeOf(blob_, 40).offset).ok());
  OpenCache();
  const auto twin = *cache_->OpenBlob(Twin(blob_));
  ASSERT_TRUE(ReadAll(*twin, blob_).ok());
  EXPECT_EQ(blob_.source->requests().size(), 1U + 2U);  // chunk 7, and 40 to 49
}

TEST_F(ReuseTest, ChecksumsAreNotEnough) {
  const FakeBlob blob({.chunks = 10, .digests = false});
  OpenCache();
  ASSERT_TRUE(ReadAll(*OpenBlob(blob), blob).ok());
  ASSERT_TRUE(cache_->Flush().ok());
  ASSERT_TRUE(ReadAll(**cache_->OpenBlob(Twin(blob)), blob).ok());
  EXPECT_EQ(cache_->stats().deduplicated_bytes, 0U);
}

// A file system that lets files share blocks.
class CloneTest : public ReuseTest {
 protected:
  static constexpr std::uint32_t kChunks = 20;
  FakeBlob large_{{.seed = 5, .chunks = kChunks, .min_chunk = 64 << 10, .max_chunk = 90'000}};
  void SetUp() override {
    OpenCache();
    cached_ = OpenBlob(large_);
    ASSERT_TRUE(ReadAll(*cached_, large_).ok());
    ASSERT_TRUE(cache_->Flush().ok());
  }
  void TearDown() override { cached_.reset(); }
  std::shared_ptr<CachedBlob> cached_;
};

TEST_F(CloneTest, BlocksAreSharedWhereTheDiskCan) {
  files_.AllowClones();
  const auto twin = *cache_->OpenBlob(Twin(large_));
  ASSERT_TRUE(ReadAll(*twin, large_).ok());
  // The last chunk ends in the middle of the file's last block.
  EXPECT_GE(files_.clones(), static_cast<int>(kChunks) - 1);
  EXPECT_EQ(large_.source->requests().size(), 1U);
  EXPECT_EQ(cache_->stats().deduplicated_bytes, twin->progress().bytes_total);
  ASSERT_TRUE(cache_->Flush().ok());
  EXPECT_TRUE(ReadAll(*twin, large_).ok());
}

TEST_F(CloneTest, SmallChunksAndThoseOffTheBlocksAreCopied) {
  files_.AllowClones();
  const FakeBlob off(
      {.seed = 6, .chunks = 20, .min_chunk = 70'000, .max_chunk = 90'000, .align = false});
  for (const FakeBlob* blob : std::initializer_list<const FakeBlob*>{&blob_, &off}) {
    const auto cached = OpenBlob(*blob);
    ASSERT_TRUE(ReadAll(*cached, *blob).ok());
    ASSERT_TRUE(cache_->Flush().ok());
    BlobSpec twin_spec = Twin(*blob);
    twin_spec.id.value = std::string(64, blob == &off ? 'd' : 'c');
    const auto twin = *cache_->OpenBlob(twin_spec);
    ASSERT_TRUE(ReadAll(*twin, *blob).ok());
    EXPECT_EQ(blob->source->requests().size(), 1U);
  }
  EXPECT_LE(files_.clones(), 1);  // one may begin at a block by chance
}

TEST_F(CloneTest, WhatChangedBeforeItWasSharedIsFetched) {
  const std::byte wrong{0x55};
  ASSERT_TRUE((*files_.Open(cached_->data_path()))
                  ->WriteAt(RangeOf(large_, 7).offset + 3, Bytes(&wrong, 1))
                  .ok());
  files_.AllowClones();
  const auto twin = *cache_->OpenBlob(Twin(large_));
  ASSERT_TRUE(ReadAll(*twin, large_).ok());
  EXPECT_EQ(large_.source->requests().size(), 2U);  // chunk 7
}

TEST_F(CloneTest, WhatLiesBehindTheChunkIsNotTaken) {
  const std::byte wrong{0x55};
  const ByteRange range = RangeOf(large_, 7);
  ASSERT_NE(range.length % 4096, 0U);
  ASSERT_TRUE((*files_.Open(cached_->data_path()))
                  ->WriteAt(range.offset + range.length, Bytes(&wrong, 1))
                  .ok());
  files_.AllowClones();
  const auto twin = *cache_->OpenBlob(Twin(large_));
  ASSERT_TRUE(ReadAll(*twin, large_).ok());
  EXPECT_EQ(large_.source->requests().size(), 1U);
}

// A clone is made before it is verified: never over what readers may be reading.
TEST_F(CloneTest, WhatIsReadyAlreadyIsLeftAlone) {
  const FakeBlob units(
      {.seed = 8, .chunks = 8, .min_chunk = 64 << 10, .max_chunk = 90'000, .chunks_per_unit = 4});
  files_.AllowClones();
  const auto first = OpenBlob(units);
  ASSERT_TRUE(ReadAll(*first, units).ok());
  ASSERT_TRUE(cache_->Flush().ok());
  BlobSpec spec = units.Spec();
  spec.id.value = std::string(64, 'd');
  const auto twin = *cache_->OpenBlob(spec);
  ASSERT_TRUE(ReadAll(*twin, units).ok());
  ASSERT_TRUE(cache_->Flush().ok());
  // The twin loses one chunk of a unit; the other blob has become a hole without being forgotten.
  files_.BreakBlocks("dddd/data", {RangeOf(units, 1).offset, 4096});
  ASSERT_TRUE((*files_.Open(first->data_path()))->PunchHole({0, first->size()}).ok());
  std::atomic<int> wrong{0};
  files_.AllowClones([&] {
    if (!ReadAndCompare(*twin, units, RangeOf(units, 0)).ok()) ++wrong;
  });
  EXPECT_TRUE(ReadAndCompare(*twin, units, RangeOf(units, 1)).ok());
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(ReadAndCompare(*twin, units, RangeOf(units, 0)).ok());
}

}  // namespace
}  // namespace davit::storage
