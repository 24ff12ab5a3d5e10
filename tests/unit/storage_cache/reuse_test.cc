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

}  // namespace
}  // namespace davit::storage
