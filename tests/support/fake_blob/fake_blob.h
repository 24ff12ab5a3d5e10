#pragma once
// A blob in memory with known content, and a source of it that waits, fails and lies on demand.

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/base/sync.h"
#include "storage/blob/blob.h"
#include "storage/cache/blob_cache.h"

namespace davit::test {

struct FakeBlobOptions {
  std::uint64_t seed = 1;
  std::uint32_t chunks = 64;
  std::uint32_t min_chunk = 1;
  std::uint32_t max_chunk = 20'000;
  std::uint32_t chunks_per_unit = 1;  // more: batches
  bool align = true;                  // chunks begin on 4 KiB boundaries
  bool digests = true;                // else CRCs
  bool nothing_to_verify = false;
  std::set<std::uint32_t> unknown = {};  // chunks that the image has neither digest nor CRC of
};

/// Random chunks; "compressed" by inverting every byte behind a one-byte header.
class FakeMap final : public storage::BlobMap {
 public:
  explicit FakeMap(const FakeBlobOptions& options);
  DigestAlgorithm digest_algorithm() const override { return DigestAlgorithm::kBlake3; }
  std::uint64_t uncompressed_size() const override { return content_.size(); }
  std::uint64_t compressed_size() const override { return stored_.size(); }
  std::uint32_t chunk_count() const override { return static_cast<std::uint32_t>(chunks_.size()); }
  std::uint32_t unit_count() const override { return static_cast<std::uint32_t>(units_.size()); }
  storage::Chunk ChunkAt(std::uint32_t i) const override { return chunks_.at(i); }
  storage::Unit UnitAt(std::uint32_t i) const override { return units_.at(i); }
  std::pair<std::uint32_t, std::uint32_t> ChunksOfUnit(std::uint32_t unit) const override {
    return spans_.at(unit);
  }
  std::uint32_t FindChunk(std::uint64_t offset) const override;
  Status Decode(std::uint32_t unit, Bytes compressed, MutableBytes out) const override;

  Bytes content() const { return content_; }  // with zeros between chunks
  Bytes stored() const { return stored_; }
  storage::BlobId id() const { return id_; }

 private:
  std::vector<storage::Chunk> chunks_;
  std::vector<storage::Unit> units_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> spans_;
  std::vector<std::byte> content_;
  std::vector<std::byte> stored_;
  storage::BlobId id_;
};

/// Thread-safe.
class FakeSource final : public storage::BlobSource {
 public:
  struct Request {
    ByteRange range;
    Cause cause = Cause::kDemand;
    std::string avoid;
  };
  /// Called before every piece with the request and the position of the piece; an error ends the
  /// transfer, the piece may be changed.
  using Hook =
      std::function<Status(const Request&, std::uint64_t position, std::vector<std::byte>& piece)>;

  explicit FakeSource(std::shared_ptr<const FakeMap> map, std::string host = "registry.test")
      : map_(std::move(map)), host_(std::move(host)) {}

  std::string Describe() const override { return host_ + "/blob"; }
  std::string Host() const override { return host_; }
  Result<std::uint64_t> Size(const Context&) override { return map_->stored().size(); }
  Status Read(const Context& ctx, ByteRange range, storage::SourceRead& how,
              const storage::ByteSink& sink) override;

  void SetHook(Hook hook);
  void SetPieceSize(std::size_t size) { piece_size_ = size; }
  void SetEndpoints(std::vector<std::string> endpoints);
  /// The endpoint flips a bit at these positions of the stored blob.
  void CorruptAt(const std::string& endpoint, std::uint64_t position);
  void Heal();
  /// Readers wait before the first byte until Open().
  void Close();
  void Open();
  /// Waits (really) until `count` requests have arrived in all; false after ten seconds.
  bool WaitForRequests(std::size_t count);
  std::vector<Request> requests() const;
  std::uint64_t bytes_sent() const { return bytes_sent_; }

 private:
  std::string Begin(const Context& ctx, const Request& request, Hook& hook,
                    std::set<std::uint64_t>& corrupt, Status& status);

  const std::shared_ptr<const FakeMap> map_;
  const std::string host_;
  std::atomic<std::size_t> piece_size_{16384};
  std::atomic<std::uint64_t> bytes_sent_{0};
  mutable Mutex mutex_;
  CondVar changed_;
  Hook hook_ DAVIT_GUARDED_BY(mutex_);
  std::vector<std::string> endpoints_ DAVIT_GUARDED_BY(mutex_){"https://one.test"};
  std::set<std::pair<std::string, std::uint64_t>> corrupt_ DAVIT_GUARDED_BY(mutex_);
  bool open_ DAVIT_GUARDED_BY(mutex_) = true;
  std::vector<Request> requests_ DAVIT_GUARDED_BY(mutex_);
};

/// Both together, as the cache wants them.
struct FakeBlob {
  explicit FakeBlob(const FakeBlobOptions& options = {})
      : map(std::make_shared<FakeMap>(options)), source(std::make_shared<FakeSource>(map)) {}
  storage::BlobSpec Spec() const;
  std::shared_ptr<FakeMap> map;
  std::shared_ptr<FakeSource> source;
};

}  // namespace davit::test
