// Images that upstream's tools merged have no digests of chunks that an upper layer hides. What
// they use is read; what they do not know is neither fetched nor delivered, unless another image of
// the same blob knows it.

#include "tests/unit/storage_cache/cache_fixture.h"

namespace davit::storage {
namespace {

class PartialMapTest : public CacheFixture {
 protected:
  static FakeBlobOptions Options(std::set<std::uint32_t> unknown, std::uint32_t per_unit) {
    return {.chunks = 24, .min_chunk = 100, .chunks_per_unit = per_unit, .unknown = unknown};
  }
  Status ReadChunk(CachedBlob& blob, std::uint32_t chunk) {
    return ReadAndCompare(blob, all_, RangeOf(all_, chunk));
  }
  void Fill(const std::shared_ptr<CachedBlob>& blob) {
    std::atomic<bool> done{false};
    cache_->Fill(blob, [&](const Status& end) { done = end.ok(); }, FillStart::kAtOnce);
    EXPECT_TRUE(Eventually([&] { return done.load(); }));
  }
  void ExpectOnly(const std::shared_ptr<CachedBlob>& blob, const std::set<std::uint32_t>& absent) {
    for (std::uint32_t i = 0; i < 24; ++i) {
      const Status status = ReadChunk(*blob, i);
      EXPECT_EQ(status.ok(), !absent.contains(i)) << i;
      EXPECT_EQ(blob->IsReady(RangeOf(all_, i)), !absent.contains(i)) << i;
      EXPECT_EQ(blob->PinReady(RangeOf(all_, i)) != nullptr, !absent.contains(i)) << i;
      if (!status.ok()) {
        EXPECT_EQ(status.error().code(), Code::kFailedPrecondition);
      }
    }
  }
  const FakeBlob all_{Options({}, 1)};
};

TEST_F(PartialMapTest, WhatIsKnownIsReadAndFilled) {
  const FakeBlob some(Options({0, 3, 4, 23}, 1));
  OpenCache();
  const auto cached = OpenBlob(some);
  EXPECT_TRUE(ReadChunk(*cached, 5).ok());
  EXPECT_FALSE(cached->progress().complete);
  Fill(cached);
  EXPECT_TRUE(cached->progress().complete);
  EXPECT_EQ(cached->progress().bytes_ready, cached->progress().bytes_total);
  ExpectOnly(cached, {0, 3, 4, 23});
  // A range that holds one of them is not to be had either.
  const ByteRange both{RangeOf(all_, 2).offset,
                       RangeOf(all_, 3).offset + 1 - RangeOf(all_, 2).offset};
  EXPECT_FALSE(ReadAndCompare(*cached, all_, both).ok());
}

TEST_F(PartialMapTest, AnotherImageTellsWhatIsMissing) {
  const FakeBlob some(Options({3, 4, 7}, 1)), other(Options({4, 9}, 1));
  OpenCache();
  const auto first = OpenBlob(some);
  Fill(first);
  const auto second = OpenBlob(other);
  // The first one knows what the second does not; nobody knows chunk 4.
  ExpectOnly(second, {4});
  Fill(second);
  EXPECT_TRUE(second->progress().complete);
  const auto third = OpenBlob(all_);
  EXPECT_TRUE(ReadAll(*third, all_).ok());
  EXPECT_TRUE(third->progress().complete);
}

TEST_F(PartialMapTest, UnitsOfSeveralChunks) {
  const FakeBlob whole(Options({}, 4)), some(Options({1, 6, 8, 9, 10, 11}, 4));
  OpenCache();
  const auto first = OpenBlob(some);
  Fill(first);
  EXPECT_TRUE(first->progress().complete);
  for (const std::uint32_t i : {0U, 2U, 5U, 7U, 12U}) {
    EXPECT_TRUE(ReadAndCompare(*first, whole, RangeOf(whole, i)).ok()) << i;
  }
  EXPECT_FALSE(ReadAndCompare(*first, whole, RangeOf(whole, 6)).ok());
  const auto second = OpenBlob(whole);
  EXPECT_TRUE(ReadAll(*second, whole).ok());
}

TEST_F(PartialMapTest, WhatBecameKnownOnTheWayIsVerifiedAnew) {
  const FakeBlob whole(Options({}, 4)), some(Options({1}, 4));
  // Chunk 1 comes damaged with the others of its unit, which the first image reads.
  const Unit unit = whole.map->UnitAt(0);
  const std::uint64_t inside = unit.compressed_offset + 1 + whole.map->ChunkAt(1).offset_in_unit;
  some.source->CorruptAt("https://one.test", inside);
  OpenCache();
  const auto first = OpenBlob(some);
  EXPECT_TRUE(ReadAndCompare(*first, whole, RangeOf(whole, 20)).ok());
  const std::size_t before = some.source->requests().size();
  some.source->Close();
  std::jthread reader([&] { EXPECT_TRUE(ReadAndCompare(*first, whole, RangeOf(whole, 0)).ok()); });
  EXPECT_TRUE(some.source->WaitForRequests(before + 1));
  const auto second = OpenBlob(whole);
  // Admits the second image while the unit is on its way.
  EXPECT_TRUE(ReadAndCompare(*second, whole, RangeOf(whole, 20)).ok());
  EXPECT_FALSE(second->IsReady(RangeOf(whole, 1)));
  some.source->Heal();
  some.source->Open();
  reader.join();
  EXPECT_TRUE(ReadAll(*second, whole).ok());
}

TEST_F(PartialMapTest, ContradictionsAreRefused) {
  OpenCache();
  const FakeBlob some(Options({3}, 1));
  const auto first = OpenBlob(some);
  EXPECT_TRUE(ReadChunk(*first, 0).ok());
  FakeBlobOptions options = Options({3}, 1);
  options.seed = 99;
  const FakeBlob evil(options);
  BlobSpec spec = evil.Spec();
  spec.id = some.map->id();
  spec.uncompressed_size = some.map->uncompressed_size();
  spec.load_map = [&](const Context&) -> Result<std::shared_ptr<const BlobMap>> {
    FakeBlobOptions sums = Options({5}, 1);
    sums.digests = false;
    return FakeBlob(sums).map;
  };
  const auto forged = *cache_->OpenBlob(spec);
  std::byte byte;
  EXPECT_EQ(forged->Read({}, 0, MutableBytes(&byte, 1)).error().code(), Code::kFailedPrecondition);
  // It has not told anything either.
  EXPECT_FALSE(ReadChunk(*first, 3).ok());
}

TEST_F(PartialMapTest, ComesBackAfterARestartAndIsEvicted) {
  const FakeBlob some(Options({3, 4}, 1));
  OpenCache();
  {
    const auto cached = OpenBlob(some);
    Fill(cached);
    // What another image has told is forgotten with it.
    const auto other = OpenBlob(all_);
    EXPECT_TRUE(ReadAll(*other, all_).ok());
  }
  cache_.reset();
  OpenCache();
  const std::uint64_t sent = some.source->bytes_sent();
  const auto cached = OpenBlob(some);
  ExpectOnly(cached, {3, 4});
  EXPECT_TRUE(cached->progress().complete);
  EXPECT_EQ(some.source->bytes_sent(), sent);
  ASSERT_TRUE(cache_->Evict(1ULL << 40).ok());
  EXPECT_EQ(cached->progress().bytes_ready, 0U);
  EXPECT_EQ(cache_->stats().bytes_on_disk, 0U);
  ExpectOnly(cached, {3, 4});
}

TEST_F(PartialMapTest, AFillBringsWhatOnlyItsOwnImageKnows) {
  const FakeBlob some(Options({3, 4}, 1));
  OpenCache();
  const auto first = OpenBlob(some);
  Fill(first);
  ASSERT_TRUE(first->progress().complete);
  const auto second = OpenBlob(all_);
  Fill(second);  // nothing was read through it before
  all_.source->Close();
  some.source->Close();
  EXPECT_TRUE(ReadAll(*second, all_).ok());
}

TEST_F(PartialMapTest, WhatWasCompleteIsMadeSoAgain) {
  const FakeBlob some(Options({3, 4}, 1));
  OpenCache();
  const auto first = OpenBlob(some);
  Fill(first);
  const auto second = OpenBlob(all_);
  EXPECT_TRUE(ReadChunk(*second, 0).ok());  // only this: the rest comes by itself
  EXPECT_TRUE(Eventually([&] {
    clock_.Advance(std::chrono::seconds(1));
    return second->progress().complete && second->IsReady(RangeOf(all_, 4));
  }));
}

TEST_F(PartialMapTest, AContradictionEndsTheFillOfWhoHasIt) {
  const FakeBlob some(Options({3}, 1));
  OpenCache();
  const auto first = OpenBlob(some);
  Fill(first);
  BlobSpec spec = some.Spec();
  spec.load_map = [&](const Context&) -> Result<std::shared_ptr<const BlobMap>> {
    FakeBlobOptions sums = Options({5}, 1);
    sums.digests = false;
    return FakeBlob(sums).map;
  };
  const auto forged = *cache_->OpenBlob(spec);
  std::atomic<bool> refused{false};
  cache_->Fill(forged, [&](const Status& end) {
    refused = !end.ok() && end.error().code() == Code::kFailedPrecondition;
  });
  EXPECT_TRUE(Eventually([&] { return refused.load(); }));
}

TEST_F(PartialMapTest, WhicheverComesFirstAfterARestartNothingIsFetchedAgain) {
  const FakeBlob some(Options({3, 4}, 1));
  std::uint64_t sent = 0;
  for (const bool partial_first : {true, false, true}) {
    cache_.reset();
    OpenCache();
    const auto first = OpenBlob(partial_first ? some : all_);
    EXPECT_TRUE(ReadChunk(*first, 0).ok());
    const auto second = OpenBlob(partial_first ? all_ : some);
    EXPECT_TRUE(ReadChunk(*second, 1).ok());
    EXPECT_TRUE(ReadAll(partial_first ? *second : *first, all_).ok());
    EXPECT_TRUE(cache_->Flush().ok());
    const std::uint64_t now = some.source->bytes_sent() + all_.source->bytes_sent();
    if (sent == 0) sent = now;
    EXPECT_EQ(now, sent);
  }
}

}  // namespace
}  // namespace davit::storage
