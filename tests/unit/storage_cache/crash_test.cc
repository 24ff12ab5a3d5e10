// Power is cut at a random moment; an arbitrary part of what was not synced survives. Whatever the
// cache then says is ready must be right, and it must not have lost more than was not flushed.

#include <random>
#include <thread>

#include "tests/unit/storage_cache/cache_fixture.h"

namespace davit::storage {
namespace {

class CrashTest : public CacheFixture, public ::testing::WithParamInterface<std::uint64_t> {};

class Crash : public CrashTest {
 protected:
  /// Every range that is said to be ready, without the network.
  void CheckWhatIsReady(const FakeBlob& blob, CachedBlob& cached) {
    for (std::uint32_t i = 0; i < blob.map->chunk_count(); ++i) {
      if (!cached.IsReady(RangeOf(blob, i))) continue;
      const Status status = ReadAndCompare(cached, blob, RangeOf(blob, i));
      ASSERT_TRUE(status.ok()) << "chunk " << i << ": " << status.error().ToString();
    }
  }
};

TEST_P(Crash, WhatIsSaidToBeReadyIsRight) {
  std::mt19937_64 random(GetParam());
  const FakeBlob blob({.seed = GetParam(),
                       .chunks = 120,
                       .max_chunk = 9000,
                       .chunks_per_unit = 1 + static_cast<std::uint32_t>(random() % 3),
                       .align = random() % 2 == 0});
  options_.max_request_bytes = 32 << 10;
  std::set<std::uint32_t> flushed;
  for (int life = 0; life < 4; ++life) {
    OpenCache();
    auto cached = OpenBlob(blob);
    blob.source->Close();  // loading the map asks nobody
    blob.source->Open();
    ASSERT_TRUE(cached->Ensure({}, {0, 1}).ok());
    CheckWhatIsReady(blob, *cached);
    for (const std::uint32_t chunk : flushed) {
      EXPECT_TRUE(cached->IsReady(RangeOf(blob, chunk))) << "lost a durable chunk";
    }
    const int steps = static_cast<int>(random() % 30);
    for (int step = 0; step < steps; ++step) {
      const std::uint64_t what = random() % 10;
      if (what < 7) {
        const std::uint64_t offset = random() % cached->size();
        ASSERT_TRUE(ReadAndCompare(*cached, blob, {offset, random() % 30'000}).ok());
      } else if (what < 8) {
        ASSERT_TRUE(cache_->Evict(random() % 100'000).ok());
        flushed.clear();  // what is left of it, and what came back meanwhile, is not told apart
      } else {
        std::set<std::uint32_t> ready;
        for (std::uint32_t i = 0; i < blob.map->chunk_count(); ++i) {
          if (cached->IsReady(RangeOf(blob, i))) ready.insert(i);
        }
        ASSERT_TRUE(cache_->Flush().ok());
        flushed = ready;
      }
    }
    // The cut may come in the middle of a flush or an eviction.
    std::jthread busy([&, what = random() % 3] {
      if (what == 0) static_cast<void>(cache_->Flush());
      if (what == 1) static_cast<void>(ReadAll(*cached, blob));
    });
    for (std::uint64_t spin = random() % 2000; spin > 0; --spin) std::this_thread::yield();
    files_.PowerCut(random());
    busy.join();
    cached.reset();
    cache_.reset();
    files_.PowerOn();
  }
  OpenCache();
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
}

INSTANTIATE_TEST_SUITE_P(Seeds, Crash, ::testing::Range<std::uint64_t>(1, 61));

// The cut comes between the clearing of bits and the punching of holes, or within either.
TEST_F(CacheFixture, ACutDuringEvictionLeavesNoBitWithoutData) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    std::mt19937_64 random(seed);
    const FakeBlob blob({.seed = seed, .chunks = 100, .max_chunk = 5000});
    OpenCache();
    auto cached = OpenBlob(blob);
    ASSERT_TRUE(ReadAll(*cached, blob).ok());
    ASSERT_TRUE(cache_->Flush().ok());
    std::jthread evictor([&] { static_cast<void>(cache_->Evict(cached->size() / 2)); });
    for (std::uint64_t spin = random() % 300; spin > 0; --spin) std::this_thread::yield();
    files_.PowerCut(seed);
    evictor.join();
    cached.reset();
    cache_.reset();
    files_.PowerOn();
    OpenCache();
    cached = OpenBlob(blob);
    ASSERT_TRUE(ReadAll(*cached, blob).ok()) << "seed " << seed;
    cached.reset();
    cache_.reset();
  }
}

}  // namespace
}  // namespace davit::storage
