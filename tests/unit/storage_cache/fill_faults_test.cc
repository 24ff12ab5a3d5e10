// Filling on a bad day: what cannot be had is left out and tried again, ever more rarely; the rest
// does not wait for it. And filling for somebody who waits.

#include <atomic>
#include <thread>

#include "tests/unit/storage_cache/cache_fixture.h"

namespace davit::storage {
namespace {

class FillFaultsTest : public CacheFixture {
 protected:
  static std::size_t RequestsFor(const FakeBlob& blob, std::uint32_t unit) {
    const Unit wanted = blob.map->UnitAt(unit);
    std::size_t n = 0;
    for (const auto& request : blob.source->requests()) {
      n += request.range.offset <= wanted.compressed_offset &&
           wanted.compressed_offset < request.range.offset + request.range.length;
    }
    return n;
  }
  /// Time goes on in small steps, and the maintenance thread runs in between.
  void Pass(std::chrono::seconds time) {
    for (std::chrono::seconds step{0}; step < time; step += std::chrono::seconds(5)) {
      clock_.Advance(std::chrono::seconds(5));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
};

TEST_F(FillFaultsTest, WhatIsDamagedForGoodIsLeftOutAndTriedEverMoreRarely) {
  options_.flush_interval = std::chrono::milliseconds(1);
  const FakeBlob blob({.chunks = 60, .min_chunk = 9000, .max_chunk = 20'000});
  const FakeBlob other({.seed = 2, .chunks = 60});
  blob.source->CorruptAt("https://one.test", blob.map->UnitAt(20).compressed_offset + 100);
  OpenCache();
  const auto cached = OpenBlob(blob);
  const auto other_cached = OpenBlob(other);
  std::atomic<bool> done{false}, other_done{false};
  cache_->Fill(cached, [&](const Status&) { done = true; });
  cache_->Fill(other_cached, [&](const Status&) { other_done = true; });
  ASSERT_TRUE(Eventually([&] {
    for (std::uint32_t i = 0; i < 60; ++i) {
      if (i != 20 && !cached->IsReady(RangeOf(blob, i))) return false;
    }
    return other_done.load();
  }));
  EXPECT_FALSE(cached->progress().complete);
  EXPECT_FALSE(cached->IsReady(RangeOf(blob, 20)));
  ASSERT_TRUE(Eventually([&] { return cache_->BackgroundError(blob.map->id()).has_value(); }));
  const auto why = cache_->BackgroundError(blob.map->id());
  EXPECT_EQ(why->code(), Code::kDataLoss) << why->ToString();
  EXPECT_FALSE(cache_->BackgroundError(other.map->id()));
  // Twice at each try. At 15, 45, 105, 225, 465, 945, 1545 s; every 15 s it would be 200 times.
  Pass(std::chrono::seconds(1500));
  const std::size_t tries = RequestsFor(blob, 20);
  EXPECT_GE(tries, 4U);
  EXPECT_LE(tries, 20U);
  EXPECT_FALSE(done);
  blob.source->Heal();
  EXPECT_TRUE(Eventually([&] {
    clock_.Advance(std::chrono::seconds(60));
    return done.load();
  }));
}

TEST_F(FillFaultsTest, ADiskThatTakesNothingIsNoReasonToFetchAllTheTime) {
  options_.flush_interval = std::chrono::milliseconds(1);
  const FakeBlob blob({.chunks = 60, .min_chunk = 9000, .max_chunk = 20'000});
  OpenCache();
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(cached->Ensure({}, {0, 1}).ok());
  files_.FailWrites("/data", EIO);
  std::atomic<bool> done{false};
  cache_->Fill(cached, [&](const Status&) { done = true; });
  ASSERT_TRUE(blob.source->WaitForRequests(2));
  // It stands still until the clock moves. How many had begun before the first write failed is a
  // matter of the machine's load.
  std::size_t begun = 0;
  EXPECT_TRUE(Eventually([&] {
    begun = blob.source->requests().size();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return blob.source->requests().size() == begun;
  }));
  Pass(std::chrono::seconds(600));
  EXPECT_LE(blob.source->requests().size() - begun, 60U);  // every 15 s it would be 80 and more
  const auto why = cache_->BackgroundError(blob.map->id());
  ASSERT_TRUE(why);
  EXPECT_NE(why->message().find("Input/output error"), std::string::npos) << why->ToString();
  files_.FailWrites("/data", 0);
  EXPECT_TRUE(Eventually([&] {
    clock_.Advance(std::chrono::seconds(60));
    return done.load();
  }));
  EXPECT_FALSE(cache_->BackgroundError(blob.map->id()));
}

TEST_F(FillFaultsTest, WhoWaitsForAllOfItDoesNotWaitForQuiet) {
  options_.quiet_period = options_.quiet_window = std::chrono::minutes(10);
  const FakeBlob blob({.chunks = 60, .min_chunk = 9000, .max_chunk = 20'000});
  OpenCache();
  const auto cached = OpenBlob(blob);
  ASSERT_TRUE(ReadAndCompare(*cached, blob, RangeOf(blob, 0)).ok());
  cache_->Fill(cached, nullptr);  // waits
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(cached->progress().complete);
  std::atomic<bool> done{false};
  cache_->Fill(cached, [&](const Status&) { done = true; }, FillStart::kAtOnce);
  EXPECT_TRUE(Eventually([&] { return done.load(); }));

  const FakeBlob second({.seed = 2, .chunks = 60});
  const auto second_cached = OpenBlob(second);
  std::atomic<bool> second_done{false};
  cache_->Fill(second_cached, [&](const Status&) { second_done = true; }, FillStart::kAtOnce);
  EXPECT_TRUE(Eventually([&] { return second_done.load(); }));
}

TEST_F(FillFaultsTest, WhyItDoesNotComeOnIsKnownUntilSomethingComes) {
  const FakeBlob blob({.chunks = 60, .min_chunk = 9000, .max_chunk = 20'000});
  OpenCache();
  EXPECT_FALSE(cache_->BackgroundError(blob.map->id()));
  const auto cached = OpenBlob(blob);
  blob.source->SetHook([](const auto&, std::uint64_t, auto&) -> Status {
    return Error(Code::kUnavailable, "away");
  });
  cache_->Fill(cached, nullptr);
  ASSERT_TRUE(Eventually([&] {
    clock_.Advance(std::chrono::seconds(60));  // patience
    return cache_->BackgroundError(blob.map->id()).has_value();
  }));
  EXPECT_EQ(cache_->BackgroundError(blob.map->id())->code(), Code::kUnavailable);
  blob.source->SetHook(nullptr);
  ASSERT_TRUE(Eventually([&] {
    clock_.Advance(std::chrono::seconds(60));
    return !cache_->BackgroundError(blob.map->id()).has_value();
  }));
  cache_->StopBackground(blob.map->id());
  EXPECT_FALSE(cache_->BackgroundError(blob.map->id()));
}

}  // namespace
}  // namespace davit::storage
