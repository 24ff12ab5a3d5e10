// Budget and eviction, under readers too.

#include <atomic>
#include <random>
#include <thread>

#include "tests/unit/storage_cache/cache_fixture.h"

namespace davit::storage {
namespace {

class EvictTest : public CacheFixture {
 protected:
  static std::uint64_t OnDisk(const FakeBlob& blob) {
    std::uint64_t sum = 0;
    for (std::uint32_t i = 0; i < blob.map->chunk_count(); ++i)
      sum += AlignUp(blob.map->ChunkAt(i).size, 4096);
    return sum;
  }
};

TEST_F(EvictTest, UnusedBlobsGoFirstLeastRecentlyUsedFirst) {
  const FakeBlob old({.seed = 1}), middle({.seed = 2}), used({.seed = 3});
  OpenCache();
  for (const FakeBlob* blob : {&middle, &old, &used})
    ASSERT_TRUE(ReadAll(*OpenBlob(*blob), *blob).ok());
  for (const FakeBlob* blob : {&old, &middle, &used}) {
    ASSERT_TRUE(OpenBlob(*blob)->Ensure({}, {0, 1}).ok());
    clock_.Advance(std::chrono::seconds(60));
  }
  cache_.reset();  // what was used when has to survive this
  OpenCache();
  const auto cached = OpenBlob(used);
  const std::uint64_t before = cache_->stats().bytes_on_disk;
  EXPECT_EQ(*cache_->Evict(1), OnDisk(old));
  EXPECT_EQ(cache_->stats().bytes_on_disk, before - OnDisk(old));
  const auto left = cache_->List();
  ASSERT_EQ(left.size(), 2U);
  for (const auto& info : left) EXPECT_NE(info.id, old.map->id());
  EXPECT_TRUE(ReadAll(*cached, used).ok());
  EXPECT_EQ(used.source->requests().size(), 1U);
}

TEST_F(EvictTest, OneThatCannotBeRemovedDoesNotKeepTheOthers) {
  const FakeBlob oldest({.seed = 1}), old({.seed = 2}), used({.seed = 3});
  OpenCache();
  for (const FakeBlob* blob : {&oldest, &old}) {
    ASSERT_TRUE(ReadAll(*OpenBlob(*blob), *blob).ok());
    clock_.Advance(std::chrono::seconds(60));
  }
  cache_.reset();
  OpenCache();  // now nobody has them open
  const auto cached = OpenBlob(used);
  ASSERT_TRUE(ReadAll(*cached, used).ok());
  files_.FailRemoves(oldest.map->id().value + "/data", EIO);
  EXPECT_EQ(*cache_->Evict(1), OnDisk(old));
  EXPECT_TRUE(cached->progress().complete);  // nothing in use had to go
  for (const auto& info : cache_->List()) EXPECT_NE(info.id, old.map->id());
  files_.FailRemoves(oldest.map->id().value + "/data", 0);
  EXPECT_EQ(*cache_->Evict(1), OnDisk(oldest));
}

TEST_F(EvictTest, GroupsOfABlobInUseAreEvictedAndFetchedAgain) {
  const FakeBlob blob({.chunks = 160});
  OpenCache();
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
  ASSERT_TRUE(cache_->Flush().ok());
  const std::uint64_t allocated = files_.AllocatedBytes();
  const std::uint64_t freed = *cache_->Evict(OnDisk(blob) / 2);
  EXPECT_GE(freed, OnDisk(blob) / 2);
  EXPECT_LT(freed, OnDisk(blob));
  EXPECT_LE(files_.AllocatedBytes() + freed, allocated + 3 * 4096);  // really gone from the disk
  EXPECT_FALSE(cached->progress().complete);
  EXPECT_FALSE(cached->IsReady({0, cached->size()}));
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
  EXPECT_GT(blob.source->bytes_sent(), blob.map->stored().size());
}

TEST_F(EvictTest, WhatWasReadLastStays) {
  const FakeBlob blob({.chunks = 64});
  OpenCache();
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
  cache_->Flush().value();
  const TimePoint begin = clock_.Now();
  // Time of accesses is counted by the maintenance thread's rounds.
  ASSERT_TRUE(clock_.WaitForSleepers(1));
  clock_.Advance(std::chrono::seconds(2));
  // The sleeper that has just been woken still counts for a moment.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ASSERT_TRUE(clock_.WaitForSleepers(1));
  EXPECT_GT(clock_.Now(), begin);
  ASSERT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 0)).ok());
  ASSERT_GT(*cache_->Evict(OnDisk(blob) / 2), 0U);
  EXPECT_TRUE(cached->IsReady(RangeOf(blob, 0)));
  EXPECT_FALSE(cached->IsReady(RangeOf(blob, 20)));
}

TEST_F(EvictTest, EvictedBitsAreGoneFromDiskToo) {
  const FakeBlob blob({.chunks = 64});
  OpenCache();
  {
    const auto cached = OpenBlob(blob);
    ASSERT_TRUE(ReadAll(*cached, blob).ok());
    ASSERT_TRUE(cache_->Flush().ok());
    ASSERT_GT(*cache_->Evict(UINT64_MAX), 0U);
    EXPECT_EQ(cached->progress().bytes_ready, 0U);
  }
  cache_.reset();
  OpenCache();
  EXPECT_TRUE(ReadAll(*OpenBlob(blob), blob).ok());
}

TEST_F(EvictTest, NothingIsPunchedWhenTheBitsCannotBeCleared) {
  const FakeBlob blob({.chunks = 64});
  OpenCache();
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
  ASSERT_TRUE(cache_->Flush().ok());
  const std::uint64_t allocated = files_.AllocatedBytes();
  files_.FailWrites("/ready", EIO);
  EXPECT_EQ(*cache_->Evict(UINT64_MAX), 0U);
  EXPECT_EQ(files_.AllocatedBytes(), allocated);
  files_.PowerCut(1);  // the bits are still on disk, and so is what they speak of
  cache_.reset();
  files_.PowerOn();
  files_.FailWrites("/ready", 0);
  OpenCache();
  EXPECT_TRUE(ReadAll(*OpenBlob(blob), blob).ok());
}

TEST_F(EvictTest, APinKeepsEverythingOfItsBlob) {
  const FakeBlob blob({.chunks = 64});
  OpenCache();
  const auto cached = OpenBlob(blob);
  EXPECT_EQ(cached->PinReady(RangeOf(blob, 1)), nullptr);
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
  {
    const auto pin = cached->PinReady(RangeOf(blob, 1));
    EXPECT_NE(pin, nullptr);
    EXPECT_EQ(*cache_->Evict(UINT64_MAX), 0U);
    EXPECT_TRUE(cached->progress().complete);
  }
  EXPECT_GT(*cache_->Evict(UINT64_MAX), 0U);
}

TEST_F(EvictTest, TheBudgetHoldsWhileReadersRun) {
  const FakeBlob blob({.chunks = 1000, .max_chunk = 8000});
  options_.budget_bytes = OnDisk(blob) / 3;
  options_.max_request_bytes = 64 << 10;
  OpenCache();
  const auto cached = OpenBlob(blob);
  std::atomic<int> bad{0};
  std::vector<std::jthread> readers;
  for (unsigned seed = 0; seed < 4; ++seed) {
    readers.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      for (int i = 0; i < 300; ++i) {
        const std::uint64_t offset = random() % cached->size();
        if (!ReadAndCompare(*cached, blob, {offset, 1 + random() % 20'000}).ok()) ++bad;
      }
    });
  }
  readers.clear();
  EXPECT_EQ(bad, 0);
  // The maintenance thread is behind by one round at most.
  for (int i = 0; i < 1000 && cache_->stats().bytes_on_disk > options_.budget_bytes; ++i) {
    clock_.Advance(std::chrono::seconds(2));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_LE(cache_->stats().bytes_on_disk, options_.budget_bytes);
  EXPECT_GT(cache_->stats().evicted_bytes, 0U);
}

TEST_F(EvictTest, EvictionUnderReadersNeverShowsAHole) {
  const FakeBlob blob({.chunks = 200, .max_chunk = 6000, .chunks_per_unit = 2, .align = false});
  OpenCache();
  const auto cached = OpenBlob(blob);
  std::atomic<int> bad{0};
  std::atomic<bool> stop{false};
  std::vector<std::jthread> readers;
  for (unsigned seed = 0; seed < 4; ++seed) {
    readers.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      while (!stop) {
        const std::uint64_t offset = random() % cached->size();
        const Status status = ReadAndCompare(*cached, blob, {offset, 1 + random() % 9000});
        // Under this much pressure a read may be told so; it must never get other bytes.
        if (!status.ok() && status.error().code() != Code::kResourceExhausted) ++bad;
      }
    });
  }
  for (int i = 0; i < 150; ++i) {
    ASSERT_TRUE(cache_->Evict(cached->size() / 4).ok());
    if (i % 10 == 0) {
      ASSERT_TRUE(cache_->Flush().ok());
    }
  }
  stop = true;
  readers.clear();
  EXPECT_EQ(bad, 0);
  EXPECT_TRUE(ReadAll(*cached, blob).ok());
}

TEST_F(EvictTest, BackgroundWorkStopsBeforeItWouldEvict) {
  const FakeBlob blob({.chunks = 500, .min_chunk = 4096, .max_chunk = 8000});
  options_.budget_bytes = OnDisk(blob) / 2;
  options_.max_request_bytes = 64 << 10;
  OpenCache();
  const auto cached = OpenBlob(blob);
  cache_->Fill(cached, [](const Status&) { FAIL() << "cannot be complete"; });
  std::uint64_t last = 0;
  for (int quiet = 0; quiet < 20;) {
    const std::uint64_t now = cached->progress().bytes_ready;
    quiet = now == last && now > 0 ? quiet + 1 : 0;
    last = now;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(cache_->stats().evicted_bytes, 0U);
  EXPECT_LE(cache_->stats().bytes_on_disk, options_.budget_bytes);
  EXPECT_GT(last, options_.budget_bytes / 2);
}

class RoomTest : public EvictTest {
 protected:
  // `old` fills the cache up to where background work stops, and is unmounted; then `wanted` is.
  void FillTheCacheWith(const FakeBlob& old) {
    options_.budget_bytes = OnDisk(old) * 100 / 86;
    options_.max_request_bytes = 64 << 10;
    OpenCache();
    ASSERT_TRUE(ReadAll(*OpenBlob(old), old).ok());
    ASSERT_EQ(cache_->stats().bytes_on_disk, OnDisk(old));
  }
  /// Time goes on until it comes true.
  template <class Predicate>
  bool InTime(Predicate predicate) {
    for (int i = 0; i < 3000; ++i) {
      if (predicate()) return true;
      clock_.Advance(std::chrono::milliseconds(100));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  std::atomic<int> ends_{0};
  std::atomic<int> good_ends_{0}, ends_without_room_{0};
  FillEnd End() {
    return [this](const Status& status) {
      if (status) ++good_ends_;
      if (!status && status.error().code() == Code::kResourceExhausted) ++ends_without_room_;
      ++ends_;
    };
  }
};

TEST_F(RoomTest, AFillTakesTheRoomOfWhatNobodyUses) {
  const FakeBlob old({.seed = 1, .chunks = 500, .min_chunk = 4096, .max_chunk = 8000});
  const FakeBlob wanted({.seed = 2, .chunks = 300, .min_chunk = 4096, .max_chunk = 8000});
  FillTheCacheWith(old);
  const auto cached = OpenBlob(wanted);
  cache_->Fill(cached, End(), FillStart::kAtOnce);
  ASSERT_TRUE(InTime([&] { return ends_ > 0; }));
  EXPECT_EQ(good_ends_, 1);
  EXPECT_TRUE(cached->progress().complete);
  EXPECT_EQ(cache_->stats().evicted_bytes, OnDisk(old));
  EXPECT_TRUE(ReadAll(*cached, wanted).ok());
}

TEST_F(RoomTest, SoDoesAPrefetchAndOnADiskThatIsShort) {
  const FakeBlob old({.seed = 1, .chunks = 64});
  const FakeBlob wanted({.seed = 2, .chunks = 64});
  options_.reserve_free_bytes = 1 << 20;
  OpenCache();
  ASSERT_TRUE(ReadAll(*OpenBlob(old), old).ok());
  files_.set_free_bytes((1 << 20) + 1000);  // enough for readers, too little to fetch ahead
  const auto cached = OpenBlob(wanted);
  const int asked = files_.free_bytes_asked();
  ASSERT_TRUE(InTime([&] { return files_.free_bytes_asked() > asked + 1; }));  // seen
  ASSERT_EQ(cache_->stats().evicted_bytes, 0U);
  cache_->Prefetch(cached, {{0, cached->size()}}, Cause::kPrefetch);
  ASSERT_TRUE(InTime([&] { return cache_->stats().evicted_bytes > 0; }));
  files_.set_free_bytes(1 << 30);  // as evicting has made it
  EXPECT_TRUE(InTime([&] { return cached->progress().complete; }));
}

TEST_F(RoomTest, WhatIsInUseStaysAndWhoWaitsIsTold) {
  const FakeBlob used({.seed = 1, .chunks = 500, .min_chunk = 4096, .max_chunk = 8000});
  const FakeBlob wanted({.seed = 2, .chunks = 300, .min_chunk = 4096, .max_chunk = 8000});
  FillTheCacheWith(used);
  auto held = OpenBlob(used);
  ASSERT_TRUE(held->Ensure({}, {0, 1}).ok());
  const auto cached = OpenBlob(wanted);
  std::atomic<int> quiet_ends{0};
  cache_->Fill(cached, [&](const Status& status) { quiet_ends += status ? 1 : 100; });
  cache_->Fill(cached, End(), FillStart::kAtOnce);
  ASSERT_TRUE(InTime([&] { return ends_ > 0; }));
  EXPECT_EQ(ends_without_room_, 1);
  EXPECT_EQ(cache_->stats().evicted_bytes, 0U);
  EXPECT_TRUE(held->progress().complete);
  EXPECT_EQ(quiet_ends, 0);  // it still waits
  // When the other image is unmounted the fill goes on by itself.
  held.reset();
  ASSERT_TRUE(InTime([&] { return quiet_ends > 0; }));
  EXPECT_EQ(quiet_ends, 1);
  EXPECT_TRUE(cached->progress().complete);
  EXPECT_EQ(ends_, 1);
}

TEST_F(EvictTest, TheReserveOfTheFileSystemIsKept) {
  const FakeBlob blob({.chunks = 64});
  options_.reserve_free_bytes = 1 << 20;
  OpenCache();
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
  files_.set_free_bytes((1 << 20) - 1000);
  for (int i = 0; i < 1000 && cache_->stats().evicted_bytes == 0; ++i) {
    clock_.Advance(std::chrono::seconds(2));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GE(cache_->stats().evicted_bytes, 1000U);
}

TEST_F(EvictTest, RemoveForgetsABlobThatIsNotInUse) {
  const FakeBlob blob;
  OpenCache();
  auto cached = OpenBlob(blob);
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
  EXPECT_EQ(cache_->Remove(blob.map->id()).error().code(), Code::kFailedPrecondition);
  cached.reset();
  cache_.reset();
  OpenCache();
  EXPECT_EQ(cache_->List().size(), 1U);
  ASSERT_TRUE(cache_->Remove(blob.map->id()).ok());
  EXPECT_EQ(cache_->Remove(blob.map->id()).error().code(), Code::kNotFound);
  EXPECT_TRUE(cache_->List().empty());
  EXPECT_EQ(cache_->stats().bytes_on_disk, 0U);
  cached = OpenBlob(blob);
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
  EXPECT_EQ(blob.source->requests().size(), 2U);
}

}  // namespace
}  // namespace davit::storage
