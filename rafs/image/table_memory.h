#pragma once
// One budget for the memory that the tables of blobs take. Their sizes come from images, which may
// lie, and many may be mounted at once.

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/context.h"
#include "common/base/sync.h"

namespace davit::rafs {

/// Thread-safe. A table takes a share before the first byte of it is read, gives back what only
/// decoding needed, and the rest when the blob's map is destroyed.
class TableMemory : public std::enable_shared_from_this<TableMemory> {
 public:
  struct Options {
    std::uint64_t limit_bytes = 0;
    /// A table waits this long for others to be decoded before it is refused.
    std::chrono::milliseconds patience{10'000};
  };
  explicit TableMemory(const Options& options) : options_(options) {}
  /// The process's: a quarter of the memory that it may use, 256 MiB at least.
  static const std::shared_ptr<TableMemory>& OfProcess();

  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept { *this = std::move(other); }
    Share& operator=(Share&& other) noexcept;
    ~Share() { KeepOnly(0); }
    /// Gives back all but `bytes`.
    void KeepOnly(std::uint64_t bytes);

   private:
    friend class TableMemory;
    std::shared_ptr<TableMemory> memory_;
    std::uint64_t bytes_ = 0;
  };
  /// `what` names the table in errors. kResourceExhausted when it is too large, or too large beside
  /// what others have.
  Result<Share> Take(const Context& ctx, std::uint64_t bytes, const std::string& what);
  std::uint64_t used() const;

 private:
  const Options options_;
  mutable Mutex mutex_;
  CondVar freed_;
  std::uint64_t used_ DAVIT_GUARDED_BY(mutex_) = 0;
};

}  // namespace davit::rafs
