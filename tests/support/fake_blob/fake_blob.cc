#include "tests/support/fake_blob/fake_blob.h"

#include <algorithm>
#include <random>

namespace davit::test {

using storage::Chunk;
using storage::Unit;

FakeMap::FakeMap(const FakeBlobOptions& options) {
  std::mt19937_64 random(options.seed);
  for (std::uint32_t i = 0; i < options.chunks;) {
    const auto unit = static_cast<std::uint32_t>(units_.size());
    const std::uint32_t count = std::min(options.chunks_per_unit, options.chunks - i);
    Unit entry{.compressed_offset = stored_.size()};
    stored_.push_back(std::byte{0x42});
    for (std::uint32_t k = 0; k < count; ++k, ++i) {
      if (options.align) content_.resize(AlignUp(content_.size(), 4096));
      Chunk chunk{
          .offset = content_.size(), .unit = unit, .offset_in_unit = entry.uncompressed_size};
      chunk.size = options.min_chunk + static_cast<std::uint32_t>(
                                           random() % (options.max_chunk - options.min_chunk + 1));
      for (std::uint32_t b = 0; b < chunk.size; ++b) {
        const auto byte = static_cast<std::byte>(random());
        content_.push_back(byte);
        stored_.push_back(~byte);
      }
      const Bytes bytes = Bytes(content_).subspan(chunk.offset, chunk.size);
      const bool known = !options.nothing_to_verify && !options.unknown.contains(i);
      if (known && options.digests) chunk.digest = Digest::Of(digest_algorithm(), bytes);
      if (known && !options.digests) chunk.crc32c = Crc32c(bytes);
      entry.uncompressed_size += chunk.size;
      chunks_.push_back(chunk);
    }
    entry.compressed_size = static_cast<std::uint32_t>(stored_.size() - entry.compressed_offset);
    spans_.emplace_back(i - count, i);
    units_.push_back(entry);
  }
  id_.value = Digest::Of(DigestAlgorithm::kSha256, stored_).Hex();
}

std::uint32_t FakeMap::FindChunk(std::uint64_t offset) const {
  const auto it = std::partition_point(chunks_.begin(), chunks_.end(),
                                       [&](const Chunk& c) { return c.offset + c.size <= offset; });
  return static_cast<std::uint32_t>(it - chunks_.begin());
}

Status FakeMap::Decode(std::uint32_t unit, Bytes compressed, MutableBytes out) const {
  if (compressed.size() != units_.at(unit).compressed_size || compressed[0] != std::byte{0x42} ||
      out.size() != units_.at(unit).uncompressed_size) {
    return Error(Code::kDataLoss, "not a unit");
  }
  std::transform(compressed.begin() + 1, compressed.end(), out.begin(),
                 [](std::byte b) { return ~b; });
  return {};
}

std::string FakeSource::Begin(const Context& ctx, const Request& request, Hook& hook,
                              std::set<std::uint64_t>& corrupt, Status& status) {
  MutexLock lock(mutex_);
  requests_.push_back(request);
  changed_.NotifyAll();
  while (!open_ && status.ok()) {
    if (!changed_.Wait(mutex_, ctx)) status = ctx.Check("fake source");
  }
  hook = hook_;
  std::string endpoint = endpoints_.front();
  for (const std::string& candidate : endpoints_) {
    if (candidate == request.avoid) continue;
    endpoint = candidate;
    break;
  }
  for (const auto& [name, position] : corrupt_) {
    if (name == endpoint) corrupt.insert(position);
  }
  return endpoint;
}

Status FakeSource::Read(const Context& ctx, ByteRange range, storage::SourceRead& how,
                        const storage::ByteSink& sink) {
  const Request request{range, ctx.cause, how.avoid_endpoint};
  Hook hook;
  std::set<std::uint64_t> corrupt;
  Status status;
  how.served_by = Begin(ctx, request, hook, corrupt, status);
  DAVIT_TRY(std::move(status));
  DAVIT_TRY_ASSIGN(Bytes rest, SubBytes(map_->stored(), range.offset, range.length, "range"));
  std::uint64_t position = range.offset;
  while (!rest.empty()) {
    DAVIT_TRY(ctx.Check("fake source"));
    const std::size_t size = std::min(rest.size(), piece_size_.load());
    std::vector<std::byte> piece(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(size));
    for (auto it = corrupt.lower_bound(position); it != corrupt.end() && *it < position + size;
         ++it) {
      piece[*it - position] ^= std::byte{1};
    }
    if (hook) DAVIT_TRY(hook(request, position, piece));
    bytes_sent_ += piece.size();
    DAVIT_TRY(sink(piece));
    rest = rest.subspan(size);
    position += size;
  }
  return {};
}

void FakeSource::SetHook(Hook hook) {
  MutexLock lock(mutex_);
  hook_ = std::move(hook);
}

void FakeSource::SetEndpoints(std::vector<std::string> endpoints) {
  MutexLock lock(mutex_);
  endpoints_ = std::move(endpoints);
}

void FakeSource::CorruptAt(const std::string& endpoint, std::uint64_t position) {
  MutexLock lock(mutex_);
  corrupt_.emplace(endpoint, position);
}

void FakeSource::Heal() {
  MutexLock lock(mutex_);
  corrupt_.clear();
  hook_ = nullptr;
}

void FakeSource::Close() {
  MutexLock lock(mutex_);
  open_ = false;
}

void FakeSource::Open() {
  MutexLock lock(mutex_);
  open_ = true;
  changed_.NotifyAll();
}

bool FakeSource::WaitForRequests(std::size_t count) {
  const Context ctx = Context{}.WithTimeout(std::chrono::seconds(10));
  MutexLock lock(mutex_);
  while (requests_.size() < count) {
    if (!changed_.Wait(mutex_, ctx) && !ctx.Check("").ok()) return false;
  }
  return true;
}

std::vector<FakeSource::Request> FakeSource::requests() const {
  MutexLock lock(mutex_);
  return requests_;
}

storage::BlobSpec FakeBlob::Spec() const {
  return storage::BlobSpec{
      .id = map->id(),
      .source = source,
      .load_map = [map = map](const Context&) -> Result<std::shared_ptr<const storage::BlobMap>> {
        return map;
      },
      .uncompressed_size = map->uncompressed_size()};
}

}  // namespace davit::test
