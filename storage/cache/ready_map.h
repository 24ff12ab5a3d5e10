#pragma once
// One bit per chunk, read without a lock on every read of the cache.

#include <atomic>
#include <cstdint>
#include <memory>

namespace davit::storage {

/// Thread-safe. All operations are sequentially consistent: the eviction protocol (read_epoch.h)
/// needs "clear, then look for readers" against "announce, then test" to have one order.
class ReadyMap {
 public:
  explicit ReadyMap(std::uint32_t count)
      : count_(count), words_(new std::atomic<std::uint64_t>[count / 64 + 1]()) {}

  std::uint32_t count() const { return count_; }
  bool Test(std::uint32_t i) const { return (words_[i / 64].load() >> (i % 64) & 1) != 0; }
  /// True when this call changed the bit.
  bool Set(std::uint32_t i) { return (words_[i / 64].fetch_or(Bit(i)) & Bit(i)) == 0; }
  bool Clear(std::uint32_t i) { return (words_[i / 64].fetch_and(~Bit(i)) & Bit(i)) != 0; }

  /// All of [first, last).
  bool AllSet(std::uint32_t first, std::uint32_t last) const {
    for (std::uint32_t i = first; i < last;) {
      const std::uint32_t end = last - i < 64 - i % 64 ? last : i - i % 64 + 64;
      const std::uint64_t mask = (~0ULL >> (64 - (end - i))) << (i % 64);
      if ((words_[i / 64].load() & mask) != mask) return false;
      i = end;
    }
    return true;
  }

 private:
  static constexpr std::uint64_t Bit(std::uint32_t i) { return 1ULL << (i % 64); }
  const std::uint32_t count_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
};

}  // namespace davit::storage
