#pragma once
// Recognizes sequential readers of a blob and says how far ahead of them to fetch.

#include <array>
#include <cstdint>

namespace davit::storage {

/// Works in the blob's compressed space, where files that were packed together are neighbours:
/// walking a tree of small files in order is one sequential reader. Not thread-safe: guarded by
/// the blob's mutex.
class ReadAhead {
 public:
  struct Limits {
    std::uint64_t first_window = 512U << 10;
    std::uint64_t max_window = 32U << 20;
  };
  struct Advice {
    bool sequential = false;
    /// Everything up to here (compressed offset, past the end) is worth fetching now.
    std::uint64_t fetch_until = 0;
    /// From here on it has not been asked for on behalf of this reader.
    std::uint64_t asked_until = 0;
  };

  explicit ReadAhead(const Limits& limits) : limits_(limits) {}
  /// A reader wants [begin, end).
  Advice OnRead(std::uint64_t begin, std::uint64_t end);
  /// Where a reader was seen last; where background work should go on.
  std::uint64_t last_position() const { return last_position_; }

 private:
  struct Stream {
    std::uint64_t position = 0;  // end of the last read
    std::uint64_t asked_until = 0;
    std::uint64_t window = 0;  // 0: unused
    std::uint64_t used = 0;
  };
  const Limits limits_;
  std::array<Stream, 16> streams_{};
  std::uint64_t clock_ = 0;
  std::uint64_t last_position_ = 0;
};

}  // namespace davit::storage
