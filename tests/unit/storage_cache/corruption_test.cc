// Damaged bytes: fetched once more elsewhere, never delivered, never kept.

#include "tests/unit/storage_cache/cache_fixture.h"

namespace davit::storage {
namespace {

class CorruptionTest : public CacheFixture {
 protected:
  /// A position in the stored form of a chunk.
  static std::uint64_t Inside(const FakeBlob& blob, std::uint32_t chunk) {
    const Unit unit = blob.map->UnitAt(blob.map->ChunkAt(chunk).unit);
    return unit.compressed_offset + unit.compressed_size / 2;
  }
  FakeBlob blob_{{.chunks = 20, .min_chunk = 100}};
};

TEST_F(CorruptionTest, AnotherEndpointHeals) {
  blob_.source->SetEndpoints({"https://bad.test", "https://good.test"});
  blob_.source->CorruptAt("https://bad.test", Inside(blob_, 5));
  OpenCache();
  const auto cached = OpenBlob(blob_);
  ASSERT_TRUE(ReadAll(*cached, blob_).ok());
  const auto requests = blob_.source->requests();
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[1].avoid, "https://bad.test");
  EXPECT_EQ(requests[1].range.length, blob_.map->UnitAt(5).compressed_size);  // alone
  EXPECT_EQ(cache_->stats().corrupt_chunks, 1U);
}

TEST_F(CorruptionTest, DamagedOnceOnlyHealsByItself) {
  std::atomic<int> left{1};
  const std::uint64_t at = Inside(blob_, 7);
  blob_.source->SetHook(
      [&](const auto&, std::uint64_t position, std::vector<std::byte>& piece) -> Status {
        if (position <= at && at < position + piece.size() && left-- > 0)
          piece[at - position] ^= std::byte{8};
        return {};
      });
  OpenCache();
  const auto cached = OpenBlob(blob_);
  ASSERT_TRUE(ReadAll(*cached, blob_).ok());
}

TEST_F(CorruptionTest, AlwaysDamagedIsAnErrorForItsReadersOnlyUntilTheRegistryHeals) {
  blob_.source->CorruptAt("https://one.test", Inside(blob_, 5));
  OpenCache();
  const auto cached = OpenBlob(blob_);
  const Status bad = ReadAndCompare(*cached, blob_, RangeOf(blob_, 5));
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code(), Code::kDataLoss);
  EXPECT_NE(bad.error().message().find("chunk 5"), std::string::npos) << bad.error().message();
  EXPECT_NE(bad.error().message().find(blob_.map->id().value), std::string::npos);
  EXPECT_NE(bad.error().message().find("https://one.test"), std::string::npos);
  EXPECT_FALSE(cached->IsReady(RangeOf(blob_, 5)));
  // Its neighbours are fine, and each new read tries again.
  EXPECT_TRUE(ReadAndCompare(*cached, blob_, RangeOf(blob_, 4)).ok());
  EXPECT_TRUE(ReadAndCompare(*cached, blob_, RangeOf(blob_, 6)).ok());
  EXPECT_FALSE(ReadAndCompare(*cached, blob_, RangeOf(blob_, 5)).ok());
  blob_.source->Heal();
  EXPECT_TRUE(ReadAll(*cached, blob_).ok());
}

TEST_F(CorruptionTest, DamageIsNotInTheCacheAfterARestart) {
  blob_.source->CorruptAt("https://one.test", Inside(blob_, 5));
  OpenCache();
  {
    const auto cached = OpenBlob(blob_);
    EXPECT_FALSE(ReadAll(*cached, blob_).ok());
  }
  cache_.reset();
  blob_.source->Heal();
  OpenCache();
  const auto cached = OpenBlob(blob_);
  EXPECT_TRUE(ReadAll(*cached, blob_).ok());
}

TEST_F(CorruptionTest, ChecksumsFindDamageWhereThereAreNoDigests) {
  const FakeBlob blob({.chunks = 4, .min_chunk = 100, .digests = false});
  blob.source->CorruptAt("https://one.test", Inside(blob, 2));
  OpenCache();
  const auto cached = OpenBlob(blob);
  EXPECT_EQ(ReadAll(*cached, blob).error().code(), Code::kDataLoss);
}

TEST_F(CorruptionTest, ABlobThatCannotBeVerifiedIsRefused) {
  const FakeBlob blob({.chunks = 4, .nothing_to_verify = true});
  OpenCache();
  const auto cached = OpenBlob(blob);
  const Status status = ReadAll(*cached, blob);
  EXPECT_EQ(status.error().code(), Code::kFailedPrecondition);
  EXPECT_FALSE(status.error().hint().empty());
  EXPECT_TRUE(blob.source->requests().empty());
}

TEST_F(CorruptionTest, AMapOfAnotherSizeIsRefused) {
  OpenCache();
  BlobSpec spec = blob_.Spec();
  spec.uncompressed_size += 1;
  const auto cached = *cache_->OpenBlob(spec);
  EXPECT_EQ(cached->Ensure({}, {0, 1}).error().code(), Code::kDataLoss);
}

TEST_F(CorruptionTest, ContentCachedForAnotherTableOfTheSameBlobIsNotUsed) {
  OpenCache();
  {
    const auto cached = OpenBlob(blob_);
    ASSERT_TRUE(ReadAll(*cached, blob_).ok());
  }
  cache_.reset();
  OpenCache();
  // A hostile image that names this blob, with digests of its own.
  const FakeBlob evil({.seed = 99, .chunks = 20, .min_chunk = 100});
  BlobSpec spec = evil.Spec();
  spec.id = blob_.map->id();
  {
    const auto cached = *cache_->OpenBlob(spec);
    ASSERT_TRUE(ReadAll(*cached, evil).ok());
  }
  cache_.reset();
  OpenCache();
  const auto cached = OpenBlob(blob_);
  EXPECT_TRUE(ReadAll(*cached, blob_).ok());
}

TEST_F(CorruptionTest, AForgedImageCannotPassItsContentToAnotherOneThatIsMounted) {
  OpenCache();
  const FakeBlob evil({.seed = 99, .chunks = 20, .min_chunk = 100});
  BlobSpec spec = evil.Spec();
  spec.id = blob_.map->id();
  // Equal sizes are the attacker's easiest exercise.
  auto padded = blob_.Spec();
  spec.uncompressed_size = padded.uncompressed_size = evil.map->uncompressed_size();
  const auto forged = *cache_->OpenBlob(spec);
  ASSERT_TRUE(ReadAll(*forged, evil).ok());
  padded.load_map = [](const Context&) -> Result<std::shared_ptr<const BlobMap>> {
    const FakeBlob other({.seed = 99, .chunks = 20, .min_chunk = 100, .digests = false});
    return other.map;
  };
  const auto honest = *cache_->OpenBlob(padded);
  EXPECT_FALSE(honest->IsReady({0, 1}));
  std::byte byte;
  EXPECT_EQ(honest->Read({}, 0, MutableBytes(&byte, 1)).error().code(), Code::kFailedPrecondition);
  EXPECT_EQ(honest->PinReady({0, 1}), nullptr);
}

TEST_F(CorruptionTest, VerifyOnStartFindsWhatChangedOnDisk) {
  OpenCache();
  std::string path;
  {
    const auto cached = OpenBlob(blob_);
    path = cached->data_path();
    ASSERT_TRUE(ReadAll(*cached, blob_).ok());
  }
  cache_.reset();
  const std::byte wrong{0x55};
  ASSERT_TRUE((*files_.Open(path))->WriteAt(RangeOf(blob_, 3).offset, Bytes(&wrong, 1)).ok());
  options_.verify_on_start = true;
  OpenCache();
  const auto cached = OpenBlob(blob_);
  ASSERT_TRUE(ReadAll(*cached, blob_).ok());
  EXPECT_EQ(cache_->stats().corrupt_chunks, 1U);
}

}  // namespace
}  // namespace davit::storage
