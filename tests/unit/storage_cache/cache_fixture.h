#pragma once
// A cache in a temporary directory over a fake blob and a disk in memory.

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "common/base/fd.h"
#include "storage/cache/blob_cache.h"
#include "storage/sched/scheduler.h"
#include "tests/support/fake_blob/fake_blob.h"
#include "tests/support/fake_blob/fake_clock.h"
#include "tests/support/fake_blob/faulty_files.h"

namespace davit::storage {

using test::FakeBlob;
using test::FakeBlobOptions;
using test::FakeSource;

class CacheFixture : public ::testing::Test {
 protected:
  CacheFixture() : dir_(*TempDir::Create("cache-test")) {
    options_.directory = dir_.path();
    options_.reserve_free_bytes = 0;
    options_.decode_threads = 2;
    scheduler_ = Scheduler::Create({}, clock_);
  }
  void OpenCache() {
    auto cache = BlobCache::Open(options_, files_, *scheduler_, clock_);
    ASSERT_TRUE(cache.ok()) << cache.error().ToString();
    cache_ = *std::move(cache);
  }
  /// Whether it comes true within some seconds.
  template <class Predicate>
  static bool Eventually(Predicate predicate) {
    for (int i = 0; i < 5000; ++i) {
      if (predicate()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  std::shared_ptr<CachedBlob> OpenBlob(const FakeBlob& blob) {
    auto opened = cache_->OpenBlob(blob.Spec());
    EXPECT_TRUE(opened.ok()) << opened.error().ToString();
    return opened.ok() ? *opened : nullptr;
  }
  /// Reads and compares; the status of the read.
  static Status ReadAndCompare(CachedBlob& blob, const FakeBlob& truth, ByteRange range,
                               const Context& ctx = {}) {
    std::vector<std::byte> out(range.length);
    DAVIT_TRY_ASSIGN(const std::size_t got, blob.Read(ctx, range.offset, out));
    const Bytes content = truth.map->content();
    const std::size_t expected =
        std::min<std::uint64_t>(range.length, content.size() - range.offset);
    if (got != expected ||
        !std::equal(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(got),
                    content.begin() + static_cast<std::ptrdiff_t>(range.offset))) {
      return Error(Code::kDataLoss, "THE CACHE DELIVERED WRONG BYTES");
    }
    return {};
  }
  static Status ReadAll(CachedBlob& blob, const FakeBlob& truth) {
    return ReadAndCompare(blob, truth, {0, truth.map->uncompressed_size()});
  }
  static ByteRange RangeOf(const FakeBlob& blob, std::uint32_t chunk) {
    const Chunk c = blob.map->ChunkAt(chunk);
    return {c.offset, c.size};
  }

  TempDir dir_;
  test::FakeClock clock_;
  test::FaultyFiles files_;
  BlobCache::Options options_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<BlobCache> cache_;
};

}  // namespace davit::storage
