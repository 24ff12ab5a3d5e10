#pragma once
// Blobs that several mounts use are read with the access of any of them: each mount adds its own
// repository as a source, and takes it away when it goes.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/sync.h"
#include "storage/blob/blob.h"

namespace davit::daemon {

/// One blob, read through the first of its sources that lets us. Thread-safe.
class SharedSource final : public storage::BlobSource {
 public:
  explicit SharedSource(storage::BlobId id) : id_(std::move(id)) {}
  std::string Describe() const override;
  std::string Host() const override;
  Result<std::uint64_t> Size(const Context& ctx) override;
  Status Read(const Context& ctx, ByteRange range, storage::SourceRead& how,
              const storage::ByteSink& sink) override;
  /// Why reads ahead of all readers fail: their last error since any byte came, each try of its
  /// own; long before the scheduler's patience ends.
  std::optional<Error> background_failure() const;

  void Add(std::uint64_t token, std::shared_ptr<storage::BlobSource> source);
  /// True when it was the last one.
  bool Remove(std::uint64_t token);

 private:
  using Item = std::pair<std::uint64_t, std::shared_ptr<storage::BlobSource>>;
  std::vector<Item> Snapshot() const;
  // Puts a source that was refused behind the others.
  void Demote(std::uint64_t token);
  Error Gone() const;
  Status ReadFromAny(const Context& ctx, ByteRange range, storage::SourceRead& how,
                     const storage::ByteSink& sink);

  const storage::BlobId id_;
  mutable Mutex mutex_;
  std::vector<Item> sources_ DAVIT_GUARDED_BY(mutex_);
  std::optional<Error> failure_ DAVIT_GUARDED_BY(mutex_);
};

/// Thread-safe; must outlive its shares.
class BlobSources {
 public:
  /// `on_unused` is told when the last share of a blob goes.
  explicit BlobSources(std::function<void(const storage::BlobId&)> on_unused)
      : on_unused_(std::move(on_unused)) {}

  /// One mount's access to one blob. Move-only.
  class Share {
   public:
    Share(Share&& other) noexcept = default;
    Share& operator=(Share&&) = delete;
    ~Share();

   private:
    friend class BlobSources;
    Share(BlobSources* owner, storage::BlobId id, std::uint64_t token,
          std::shared_ptr<SharedSource> shared)
        : owner_(owner), id_(std::move(id)), token_(token), shared_(std::move(shared)) {}
    BlobSources* owner_;
    storage::BlobId id_;
    std::uint64_t token_;
    std::shared_ptr<SharedSource> shared_;  // null after a move
  };
  Share Add(const storage::BlobId& id, std::shared_ptr<storage::BlobSource> source);
  /// The source of a blob, for the cache.
  std::shared_ptr<storage::BlobSource> Get(const storage::BlobId& id);
  /// See SharedSource; nothing for a blob that nothing uses.
  std::optional<Error> BackgroundFailure(const storage::BlobId& id) const;

 private:
  std::shared_ptr<SharedSource> GetLocked(const storage::BlobId& id) DAVIT_REQUIRES(mutex_);

  const std::function<void(const storage::BlobId&)> on_unused_;
  mutable Mutex mutex_;
  std::uint64_t last_token_ DAVIT_GUARDED_BY(mutex_) = 0;
  std::map<storage::BlobId, std::weak_ptr<SharedSource>> sources_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::daemon
