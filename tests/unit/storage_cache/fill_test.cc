// Planning: merging, reading ahead, prefetch, fill, cancellation, recorded accesses.

#include <atomic>
#include <thread>

#include "tests/unit/storage_cache/cache_fixture.h"

namespace davit::storage {
namespace {

class FillTest : public CacheFixture {
 protected:
  void FillAndWait(const std::shared_ptr<CachedBlob>& cached) {
    std::atomic<bool> done{false};
    cache_->Fill(cached, [&](const Status&) {
      done = true;
      done.notify_all();
    });
    done.wait(false);
  }
};

TEST_F(FillTest, NeighboursAreFetchedInOneRequestAcrossSmallGaps) {
  const FakeBlob blob({.chunks = 60, .min_chunk = 1000, .max_chunk = 2000});
  OpenCache();
  const auto cached = OpenBlob(blob);
  // Chunk 10 first, alone at the end of a closed source; then the range around it.
  options_.max_request_bytes = 8 << 20;
  ASSERT_TRUE(cached->Ensure({.cause = Cause::kPrefetch}, RangeOf(blob, 10)).ok());
  ASSERT_EQ(blob.source->requests().size(), 1U);
  EXPECT_EQ(blob.source->requests()[0].range.length, blob.map->UnitAt(10).compressed_size);
  const std::uint64_t begin = RangeOf(blob, 5).offset;
  ASSERT_TRUE(
      cached->Ensure({.cause = Cause::kPrefetch}, {begin, RangeOf(blob, 20).offset - begin}).ok());
  ASSERT_EQ(blob.source->requests().size(), 2U);  // over the gap that chunk 10 is
  EXPECT_EQ(blob.source->requests()[1].range.offset, blob.map->UnitAt(5).compressed_offset);
}

TEST_F(FillTest, LargeGapsAreNotFetched) {
  const FakeBlob blob({.chunks = 60, .min_chunk = 9000, .max_chunk = 10'000});
  options_.merge_gap_bytes = 4096;
  OpenCache();
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(cached->Ensure({.cause = Cause::kPrefetch}, RangeOf(blob, 10)).ok());
  const std::uint64_t begin = RangeOf(blob, 9).offset;
  ASSERT_TRUE(
      cached->Ensure({.cause = Cause::kPrefetch}, {begin, RangeOf(blob, 12).offset - begin}).ok());
  EXPECT_EQ(blob.source->requests().size(), 3U);
  EXPECT_EQ(blob.source->bytes_sent(),
            blob.map->UnitAt(12).compressed_offset - blob.map->UnitAt(9).compressed_offset);
}

TEST_F(FillTest, ASequentialReaderNeedsFewRequestsAndFetchesNothingTwice) {
  const FakeBlob blob({.chunks = 4000, .min_chunk = 1000, .max_chunk = 4000});
  options_.max_request_bytes = 1 << 20;
  OpenCache();
  const auto cached = OpenBlob(blob);
  for (std::uint32_t i = 0; i < 4000; ++i) {
    ASSERT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, i)).ok());
  }
  ASSERT_TRUE(Eventually([&] { return blob.source->bytes_sent() >= blob.map->stored().size(); }));
  EXPECT_EQ(blob.source->bytes_sent(), blob.map->stored().size());
  EXPECT_LE(blob.source->requests().size(), 10 + blob.map->stored().size() / (1 << 20) * 2);
}

TEST_F(FillTest, AReaderWaitsOnlyForItsChunksNotForTheRequest) {
  const FakeBlob blob({.chunks = 40, .min_chunk = 9000, .max_chunk = 10'000});
  blob.source->SetPieceSize(4096);
  std::atomic<bool> open{false};
  blob.source->SetHook([&](const auto& request, std::uint64_t position, auto&) -> Status {
    if (position > request.range.offset + 60'000) open.wait(false);
    return {};
  });
  OpenCache();
  const auto cached = OpenBlob(blob);
  EXPECT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 1)).ok());  // the request goes on
  EXPECT_FALSE(cached->IsReady(RangeOf(blob, 20)));
  open = true;
  open.notify_all();
  // The hook looks at `open` as long as the request runs.
  EXPECT_TRUE(Eventually([&] { return cached->IsReady(RangeOf(blob, 20)); }));
}

TEST_F(FillTest, ReadersJoinWhatTheFillHasOnItsWay) {
  const FakeBlob blob({.chunks = 500, .max_chunk = 4000});
  OpenCache();
  const auto cached = OpenBlob(blob);
  blob.source->Close();
  cache_->Fill(cached, nullptr);
  ASSERT_TRUE(blob.source->WaitForRequests(1));
  std::jthread reader([&] { EXPECT_TRUE(ReadAll(*cached, blob).ok()); });
  blob.source->Open();
  reader.join();
  EXPECT_EQ(blob.source->bytes_sent(), blob.map->stored().size());
}

TEST_F(FillTest, AReaderTakesOverWhatTheFillHasNotBegun) {
  const FakeBlob blob({.chunks = 3000, .min_chunk = 9000, .max_chunk = 10'000});
  options_.quiet_period = options_.quiet_window = std::chrono::minutes(10);
  OpenCache();
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 0)).ok());
  const std::size_t before = blob.source->requests().size();
  cache_->Fill(cached, nullptr);
  // The fill has claimed what it wants, and waits.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(blob.source->requests().size(), before);
  ASSERT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 1500)).ok());
  const auto requests = blob.source->requests();
  ASSERT_EQ(requests.size(), before + 1);
  EXPECT_LE(requests.back().range.length, 1U << 20);
  EXPECT_EQ(requests.back().range.offset, blob.map->UnitAt(1500).compressed_offset);
}

// Somebody asked for all of a prefetched range: a reader who wants a part takes nothing away.
TEST_F(FillTest, AReaderLeavesAPrefetchWhole) {
  const FakeBlob blob({.chunks = 3000, .min_chunk = 9000, .max_chunk = 10'000});
  options_.fetch_threads = 1;  // held by the first reader
  OpenCache();
  const auto cached = OpenBlob(blob);
  blob.source->Close();
  std::jthread first([&] { EXPECT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 0)).ok()); });
  ASSERT_TRUE(blob.source->WaitForRequests(1));
  const ByteRange begin = RangeOf(blob, 1000), end = RangeOf(blob, 1099);
  const ByteRange range{begin.offset, end.offset + end.length - begin.offset};
  cache_->Prefetch(cached, {range}, Cause::kPrefetch);
  std::jthread second(
      [&] { EXPECT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 1090)).ok()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // it has found the prefetch's claim
  blob.source->Open();
  EXPECT_TRUE(Eventually([&] { return cached->IsReady(range); }));
}

TEST_F(FillTest, PrefetchFetchesItsRangesInOrderAndNothingElse) {
  const FakeBlob blob({.chunks = 300, .min_chunk = 9000, .max_chunk = 10'000});
  OpenCache();
  const auto cached = OpenBlob(blob);
  cache_->Prefetch(cached, {RangeOf(blob, 200), RangeOf(blob, 100)}, Cause::kPrefetch);
  ASSERT_TRUE(Eventually(
      [&] { return cached->IsReady(RangeOf(blob, 200)) && cached->IsReady(RangeOf(blob, 100)); }));
  const auto requests = blob.source->requests();
  ASSERT_EQ(requests.size(), 2U);
  std::set<std::uint64_t> offsets = {requests[0].range.offset, requests[1].range.offset};
  EXPECT_TRUE(offsets.contains(blob.map->UnitAt(200).compressed_offset));
  EXPECT_TRUE(offsets.contains(blob.map->UnitAt(100).compressed_offset));
  EXPECT_EQ(requests[0].cause, Cause::kPrefetch);
}

TEST_F(FillTest, StopBackgroundEndsIt) {
  const FakeBlob blob({.chunks = 300});
  options_.max_request_bytes = 16 << 10;
  OpenCache();
  auto cached = OpenBlob(blob);
  blob.source->Close();
  cache_->Fill(cached, [](const Status&) { FAIL() << "it was stopped"; });
  ASSERT_TRUE(blob.source->WaitForRequests(1));
  cache_->StopBackground(cached->id());
  blob.source->Open();
  ASSERT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 0)).ok());
  EXPECT_FALSE(cached->progress().complete);
}

TEST_F(FillTest, ReleasingABlobCancelsWhatIsOnItsWay) {
  const FakeBlob blob({.chunks = 300});
  OpenCache();
  auto cached = OpenBlob(blob);
  blob.source->Close();
  cache_->Fill(cached, nullptr);
  ASSERT_TRUE(blob.source->WaitForRequests(1));
  cached.reset();
  cache_.reset();  // would wait for ever
}

TEST_F(FillTest, ACancelledReaderReturnsAtOnceAndTheNextOneSucceeds) {
  const FakeBlob blob;
  OpenCache();
  const auto cached = OpenBlob(blob);
  blob.source->Close();
  std::stop_source stop;
  std::jthread reader([&] {
    const Status status = ReadAndCompare(*cached, blob, {0, 10}, {.stop = stop.get_token()});
    EXPECT_EQ(status.error().code(), Code::kCancelled);
  });
  ASSERT_TRUE(blob.source->WaitForRequests(1));
  stop.request_stop();
  reader.join();
  blob.source->Open();
  EXPECT_TRUE(ReadAndCompare(*cached, blob, {0, 10}).ok());
}

TEST_F(FillTest, ADeadlineEndsTheWait) {
  const FakeBlob blob;
  OpenCache();
  const auto cached = OpenBlob(blob);
  blob.source->Close();
  const Context ctx = Context{}.WithTimeout(std::chrono::milliseconds(20));
  EXPECT_EQ(ReadAndCompare(*cached, blob, {0, 10}, ctx).error().code(), Code::kDeadlineExceeded);
  blob.source->Open();
}

TEST_F(FillTest, FillGoesOnAfterAnOutage) {
  const FakeBlob blob({.chunks = 100});
  OpenCache();
  const auto cached = OpenBlob(blob);
  std::atomic<bool> refuse{true};
  blob.source->SetHook([&](const auto&, std::uint64_t, auto&) -> Status {
    if (refuse) return Error(Code::kPermissionDenied, "403");
    return {};
  });
  std::atomic<bool> done{false};
  cache_->Fill(cached, [&](const Status&) { done = true; });
  ASSERT_TRUE(blob.source->WaitForRequests(1));
  refuse = false;
  ASSERT_TRUE(Eventually([&] {
    clock_.Advance(std::chrono::seconds(5));
    return done.load();
  }));
}

TEST_F(FillTest, WhatWasReadIsRememberedAndFilledFirst) {
  const FakeBlob blob({.chunks = 200, .min_chunk = 9000, .max_chunk = 10'000});
  OpenCache();
  {
    const auto cached = OpenBlob(blob);
    for (const std::uint32_t chunk : {150U, 20U, 150U, 90U}) {
      ASSERT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, chunk)).ok());
    }
  }
  cache_.reset();
  OpenCache();
  EXPECT_EQ(*cache_->AccessOrder(blob.map->id()), (std::vector<std::uint32_t>{150, 20, 90}));
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(cached->Ensure({.cause = Cause::kBackfill}, {0, 1}).ok());
  ASSERT_GT(*cache_->Evict(UINT64_MAX), 0U);
  const std::size_t before = blob.source->requests().size();
  FillAndWait(cached);
  const auto requests = blob.source->requests();
  // In the order of the blob no request would begin at these.
  std::set<std::uint64_t> begins;
  for (std::size_t i = before; i < requests.size(); ++i) begins.insert(requests[i].range.offset);
  EXPECT_TRUE(begins.contains(blob.map->UnitAt(150).compressed_offset));
  EXPECT_TRUE(begins.contains(blob.map->UnitAt(20).compressed_offset));
}

TEST_F(FillTest, UsersOfOneBlobShareItAndHelpOut) {
  const FakeBlob blob;
  const FakeBlob again;  // equal content, other credentials
  OpenCache();
  const auto first = OpenBlob(blob);
  const auto second = OpenBlob(again);
  blob.source->SetHook([](const auto&, std::uint64_t, auto&) -> Status {
    return Error(Code::kUnauthenticated, "401");
  });
  EXPECT_TRUE(ReadAll(*first, blob).ok());
  EXPECT_GT(again.source->bytes_sent(), 0U);
  const std::uint64_t sent = again.source->bytes_sent();
  EXPECT_TRUE(ReadAll(*second, blob).ok());
  EXPECT_EQ(again.source->bytes_sent(), sent);
}

TEST_F(FillTest, ReadersOfOneImageDoNotKeepAnotherWaiting) {
  const FakeBlob busy({.seed = 1, .chunks = 64}), other({.seed = 2});
  options_.fetch_threads = 2;
  options_.merge_gap_bytes = 0;
  OpenCache();
  BlobSpec busy_spec = busy.Spec(), other_spec = other.Spec();
  busy_spec.image = "registry.test/busy";
  other_spec.image = "registry.test/other";
  const auto cached = *cache_->OpenBlob(busy_spec);
  const auto other_cached = *cache_->OpenBlob(other_spec);
  std::atomic<std::size_t> before{0};
  other.source->SetHook(
      [&](const FakeSource::Request&, std::uint64_t position, std::vector<std::byte>&) {
        if (position == 0) before = busy.source->requests().size();
        return Status();
      });
  busy.source->Close();
  std::vector<std::jthread> readers;
  constexpr std::uint32_t kReaders = 12;
  for (std::uint32_t i = 0; i < kReaders; ++i) {
    // From the end to the beginning: nothing is read ahead, each is a request of its own.
    readers.emplace_back([&, chunk = 60 - 5 * i] {
      EXPECT_TRUE(ReadAndCompare(*cached, busy, RangeOf(busy, chunk)).ok());
    });
  }
  ASSERT_TRUE(busy.source->WaitForRequests(2));
  ASSERT_TRUE(Eventually([&] { return cache_->stats().misses >= kReaders; }));
  readers.emplace_back(
      [&] { EXPECT_TRUE(ReadAndCompare(*other_cached, other, RangeOf(other, 0)).ok()); });
  ASSERT_TRUE(Eventually([&] { return cache_->stats().misses > kReaders; }));
  busy.source->Open();
  readers.clear();
  EXPECT_LE(before.load(), 8U);  // not behind all twelve
}

}  // namespace
}  // namespace davit::storage
