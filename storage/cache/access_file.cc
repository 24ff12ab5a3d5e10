// The order of first reads, kept beside the blob. Not needed for correctness: what cannot be read
// is forgotten.

#include <cstring>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "storage/cache/blob_core.h"

namespace davit::storage {
namespace {

struct AccessHeader {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t count;
  Digest identity;
  std::uint32_t reserved;
  std::uint32_t crc;  // of the entries
};
constexpr std::array<char, 8> kMagic = {'D', 'V', 'T', 'A', 'C', 'C', 'E', 'S'};

// Empty for a file that is damaged, or about another table than `identity` (if given).
std::vector<std::uint32_t> ReadFor(const std::string& path, const Digest* identity) {
  const Result<std::string> file = ReadFile(path);
  if (!file.ok()) return {};
  const Result<AccessHeader> header = LoadAt<AccessHeader>(AsBytes(*file), 0, "access file");
  if (!header.ok() || header->magic != kMagic || header->version != 1 ||
      (identity != nullptr && header->identity != *identity)) {
    return {};
  }
  const Bytes entries = AsBytes(*file).subspan(sizeof(AccessHeader));
  if (entries.size() != std::uint64_t{header->count} * 4 || Crc32c(entries) != header->crc)
    return {};
  std::vector<std::uint32_t> order(header->count);
  // An empty vector has no memory, which memcpy must not be given.
  if (!order.empty()) std::memcpy(order.data(), entries.data(), entries.size());
  return order;
}

}  // namespace

void BlobCore::LoadAccessOrder(LoadedMap& loaded) {
  const std::vector<std::uint32_t> order = ReadFor(directory_ + "/access", &loaded.identity);
  MutexLock lock(mutex_);
  for (const std::uint32_t chunk : order) {
    if (chunk < loaded.map->chunk_count() && loaded.touched.Set(chunk))
      access_order_.push_back(chunk);
  }
  access_saved_ = access_order_.size();
}

std::vector<std::uint32_t> ReadAccessFile(const std::string& path) {
  return ReadFor(path, nullptr);
}

void BlobCore::SaveAccessOrder() {
  const LoadedMap* loaded = loaded_.load();
  if (loaded == nullptr) return;
  std::vector<std::uint32_t> order;
  {
    MutexLock lock(mutex_);
    if (access_order_.size() == access_saved_) return;
    order = access_order_;
    access_saved_ = order.size();
  }
  const Bytes entries = std::as_bytes(std::span(order));
  const AccessHeader header{.magic = kMagic,
                            .version = 1,
                            .count = static_cast<std::uint32_t>(order.size()),
                            .identity = loaded->identity,
                            .reserved = 0,
                            .crc = Crc32c(entries)};
  std::string file(AsText(std::as_bytes(std::span(&header, 1))));
  file += AsText(entries);
  if (const Status status = WriteFileAtomic(directory_ + "/access", AsBytes(file)); !status.ok()) {
    log::Warn("cannot save the access order", {{"blob", id_.value}, {"error", status.error()}});
  }
}

}  // namespace davit::storage
