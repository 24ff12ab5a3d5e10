// Chunks that the cache had and the disk does not give back: they are fetched anew.

#include <atomic>
#include <thread>

#include "tests/unit/storage_cache/cache_fixture.h"

namespace davit::storage {
namespace {

class RepairTest : public CacheFixture {
 protected:
  std::shared_ptr<CachedBlob> OpenWhole(const FakeBlob& blob) {
    OpenCache();
    auto cached = OpenBlob(blob);
    EXPECT_TRUE(ReadAll(*cached, blob).ok());
    EXPECT_TRUE(cache_->Flush().ok());
    return cached;
  }
  void CutTo(const CachedBlob& cached, std::uint64_t size) {
    ASSERT_TRUE((*files_.Open(cached.data_path()))->Truncate(size).ok());
  }
};

TEST_F(RepairTest, ABadSectorIsFetchedAnewOnce) {
  const FakeBlob blob({.chunks = 40, .min_chunk = 9000, .max_chunk = 20'000});
  const auto cached = OpenWhole(blob);
  const std::size_t before = blob.source->requests().size();
  const int synced = files_.syncs("/ready");
  std::atomic<int> synced_at_request{0};
  blob.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    synced_at_request = files_.syncs("/ready");
    return {};
  });
  files_.BreakBlocks("/data", {RangeOf(blob, 7).offset + 5000, 1});
  EXPECT_TRUE(ReadAll(*cached, blob).ok());
  const auto requests = blob.source->requests();
  ASSERT_EQ(requests.size(), before + 1);
  EXPECT_EQ(requests.back().range.offset, blob.map->UnitAt(7).compressed_offset);
  EXPECT_EQ(requests.back().range.length, blob.map->UnitAt(7).compressed_size);
  // A crash in between must not find a bit for what is half written.
  EXPECT_GT(synced_at_request.load(), synced);
  EXPECT_EQ(cache_->stats().lost_chunks, 1U);
  EXPECT_TRUE(ReadAll(*cached, blob).ok());
  EXPECT_TRUE(cached->progress().complete);
  EXPECT_EQ(blob.source->requests().size(), before + 1);
}

TEST_F(RepairTest, NeighboursInTheSameBlockComeAlong) {
  const FakeBlob blob({.chunks = 200, .min_chunk = 100, .max_chunk = 3000, .align = false});
  const auto cached = OpenWhole(blob);
  files_.BreakBlocks("/data", {4 * 4096, 3 * 4096});
  for (std::uint32_t i = 0; i < 200; ++i)
    EXPECT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, i)).ok()) << i;
  EXPECT_GT(cache_->stats().lost_chunks, 3U);
}

TEST_F(RepairTest, ManyReadersOfOneBadSectorFetchItOnce) {
  const FakeBlob blob({.chunks = 40, .min_chunk = 9000, .max_chunk = 20'000});
  const auto cached = OpenWhole(blob);
  const std::size_t before = blob.source->requests().size();
  files_.BreakBlocks("/data", RangeOf(blob, 11));
  {
    std::vector<std::jthread> readers;
    for (int i = 0; i < 8; ++i) {
      readers.emplace_back(
          [&] { EXPECT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 11)).ok()); });
    }
  }
  EXPECT_EQ(blob.source->requests().size(), before + 1);
}

TEST_F(RepairTest, WhenWritingFailsTooTheReaderHearsWhy) {
  const FakeBlob blob({.chunks = 40});
  const auto cached = OpenWhole(blob);
  files_.BreakBlocks("/data", RangeOf(blob, 7));
  files_.FailWrites("/data", EIO);
  const Status status = ReadAndCompare(*cached, blob, RangeOf(blob, 7));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code(), Code::kInternal);
  EXPECT_NE(status.error().ToString().find("check the cache's disk"), std::string::npos);
  EXPECT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 20)).ok());
  files_.FailWrites("/data", 0);
  EXPECT_TRUE(ReadAll(*cached, blob).ok());
}

TEST_F(RepairTest, WhenTheBitsCannotBeClearedTheReaderHearsWhy) {
  const FakeBlob blob({.chunks = 40});
  const auto cached = OpenWhole(blob);
  files_.BreakBlocks("/data", RangeOf(blob, 7));
  files_.FailWrites("/ready", EROFS);
  const Status status = ReadAndCompare(*cached, blob, RangeOf(blob, 7));
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message().find("cannot be replaced"), std::string::npos);
  files_.FailWrites("/ready", 0);
  EXPECT_TRUE(ReadAll(*cached, blob).ok());
}

TEST_F(RepairTest, ADiskThatLosesItAgainIsNoReasonToAskTheRegistryAllTheTime) {
  const FakeBlob blob({.chunks = 40, .min_chunk = 9000, .max_chunk = 20'000});
  const auto cached = OpenWhole(blob);
  const std::size_t before = blob.source->requests().size();
  files_.BreakBlocks("/data", RangeOf(blob, 7), true);
  for (int i = 0; i < 3; ++i) {
    const Status status = ReadAndCompare(*cached, blob, RangeOf(blob, 7));
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code(), Code::kInternal);
  }
  EXPECT_EQ(blob.source->requests().size(), before + 1);
  clock_.Advance(std::chrono::seconds(61));
  EXPECT_FALSE(ReadAndCompare(*cached, blob, RangeOf(blob, 7)).ok());
  EXPECT_EQ(blob.source->requests().size(), before + 2);
}

TEST_F(RepairTest, AFileThatWasCutShortIsMadeWholeAgain) {
  const FakeBlob blob({.chunks = 60, .min_chunk = 9000, .max_chunk = 20'000});
  const auto cached = OpenWhole(blob);
  const std::uint64_t sent = blob.source->bytes_sent();
  CutTo(*cached, RangeOf(blob, 30).offset + 10);
  EXPECT_TRUE(ReadAll(*cached, blob).ok());
  EXPECT_EQ(blob.source->bytes_sent() - sent,
            blob.map->stored().size() - blob.map->UnitAt(30).compressed_offset);
  EXPECT_EQ(cache_->stats().lost_chunks, 30U);
}

// Writing behind the end makes the file long again: what was lost before it would read as zeros.
TEST_F(RepairTest, WhatWasCutOffIsNotMistakenForZeros) {
  const FakeBlob blob({.chunks = 60, .min_chunk = 9000, .max_chunk = 20'000});
  OpenCache();
  const auto cached = OpenBlob(blob);
  for (std::uint32_t i = 0; i < 30; ++i)
    ASSERT_TRUE(cached->Ensure({.cause = Cause::kPrefetch}, RangeOf(blob, i)).ok());
  ASSERT_TRUE(cache_->Flush().ok());
  CutTo(*cached, 0);
  EXPECT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 59)).ok());
  EXPECT_TRUE(ReadAll(*cached, blob).ok());
}

TEST_F(RepairTest, WhatWasCompleteBecomesCompleteAgain) {
  const FakeBlob blob({.chunks = 60, .min_chunk = 9000, .max_chunk = 20'000});
  OpenCache();
  const auto cached = OpenBlob(blob);
  std::atomic<bool> done{false};
  cache_->Fill(cached, [&](const Status&) {
    done = true;
    done.notify_all();
  });
  done.wait(false);
  CutTo(*cached, 100);
  EXPECT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 3)).ok());
  for (int i = 0; i < 5000 && !cached->progress().complete; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(cached->progress().complete);
}

}  // namespace
}  // namespace davit::storage
