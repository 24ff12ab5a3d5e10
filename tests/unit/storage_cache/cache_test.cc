#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "tests/unit/storage_cache/cache_fixture.h"

namespace davit::storage {
namespace {

class CacheTest : public CacheFixture {};

TEST_F(CacheTest, ReadsEverythingOnceAndVerified) {
  const FakeBlob blob({.chunks = 300});
  OpenCache();
  const auto cached = OpenBlob(blob);
  EXPECT_FALSE(cached->IsReady({0, 1}));
  const Status first = ReadAll(*cached, blob);
  ASSERT_TRUE(first.ok()) << first.error().ToString();
  EXPECT_TRUE(cached->IsReady({0, cached->size()}));
  EXPECT_TRUE(cached->progress().complete);
  EXPECT_EQ(blob.source->bytes_sent(), blob.map->stored().size());
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
  EXPECT_EQ(blob.source->bytes_sent(), blob.map->stored().size());
  // Ranges past the end are clipped.
  EXPECT_TRUE(cached->Ensure({}, {cached->size() - 1, UINT64_MAX}).ok());
  std::byte one;
  EXPECT_EQ(*cached->Read({}, cached->size(), MutableBytes(&one, 1)), 0U);
}

TEST_F(CacheTest, ManyReadersMakeOneRequest) {
  const FakeBlob blob({.chunks = 8});
  OpenCache();
  const auto cached = OpenBlob(blob);
  blob.source->Close();
  std::vector<std::jthread> readers;
  std::atomic<int> good{0};
  for (int i = 0; i < 16; ++i) {
    readers.emplace_back([&] {
      if (ReadAndCompare(*cached, blob, RangeOf(blob, 3)).ok()) ++good;
    });
  }
  ASSERT_TRUE(blob.source->WaitForRequests(1));
  blob.source->Open();
  readers.clear();
  EXPECT_EQ(good, 16);
  EXPECT_EQ(blob.source->requests().size(), 1U);
}

TEST_F(CacheTest, SurvivesReopenWithoutFetchingAgain) {
  const FakeBlob blob({.chunks = 50});
  OpenCache();
  {
    const auto cached = OpenBlob(blob);
    ASSERT_TRUE(ReadAll(*cached, blob).ok());
  }
  cache_.reset();
  OpenCache();
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
  EXPECT_EQ(blob.source->requests().size(), 1U);
}

TEST_F(CacheTest, FillCompletesInLargeRequests) {
  const FakeBlob blob({.chunks = 2000, .max_chunk = 8000});
  options_.max_request_bytes = 1 << 20;
  OpenCache();
  const auto cached = OpenBlob(blob);
  std::atomic<bool> done{false};
  cache_->Fill(cached, [&](const Status&) {
    done = true;
    done.notify_all();
  });
  done.wait(false);
  EXPECT_TRUE(cached->progress().complete);
  EXPECT_EQ(blob.source->bytes_sent(), blob.map->stored().size());
  EXPECT_LE(blob.source->requests().size(), blob.map->stored().size() / (1 << 20) + 2);
  ASSERT_TRUE(ReadAll(*cached, blob).ok());
}

TEST_F(CacheTest, ConcurrentRandomReadersSeeTheRightBytes) {
  const FakeBlob blob({.chunks = 800, .chunks_per_unit = 3, .align = false, .digests = false});
  options_.max_request_bytes = 200'000;
  options_.max_buffer_bytes = 1 << 20;
  OpenCache();
  const auto cached = OpenBlob(blob);
  cache_->Fill(cached, nullptr);
  std::atomic<int> bad{0};
  std::vector<std::jthread> readers;
  for (unsigned seed = 0; seed < 8; ++seed) {
    readers.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      for (int i = 0; i < 200; ++i) {
        const std::uint64_t offset = random() % cached->size();
        if (!ReadAndCompare(*cached, blob, {offset, 1 + random() % 60'000}).ok()) ++bad;
      }
    });
  }
  readers.clear();
  EXPECT_EQ(bad, 0);
}

}  // namespace
}  // namespace davit::storage
