#include <fmt/format.h>

#include <cstring>
#include <random>
#include <vector>

#include "rafs/builder/builder.h"

namespace davit::rafs {
namespace {

struct Entry {
  Digest digest;
  std::uint32_t size;
  ChunkRef ref;
};

constexpr std::uint32_t kEmpty = UINT32_MAX;

}  // namespace

// Open addressing over a vector of entries: one allocation per doubling, not one per chunk. The
// seed keeps a hostile image's digests from being chosen to collide; it does not change results.
struct ChunkDict::State {
  std::vector<Entry> entries;
  std::vector<std::uint32_t> slots = std::vector<std::uint32_t>(1024, kEmpty);
  std::uint64_t seed = (std::uint64_t{std::random_device{}()} << 32) | std::random_device{}();

  std::size_t Hash(const Digest& digest) const {
    std::uint64_t words[4];
    std::memcpy(words, digest.bytes.data(), sizeof words);
    std::uint64_t h = seed;
    for (const std::uint64_t word : words) {
      h = (h ^ word) * 0x9E3779B97F4A7C15ULL;
      h ^= h >> 32;
    }
    return h;
  }

  // The slot that holds the chunk, or the empty one where it would go.
  std::size_t Slot(const Digest& digest, std::uint32_t size) const {
    std::size_t i = Hash(digest) & (slots.size() - 1);
    while (slots[i] != kEmpty) {
      const Entry& entry = entries[slots[i]];
      if (entry.size == size && entry.digest == digest) break;
      i = (i + 1) & (slots.size() - 1);
    }
    return i;
  }

  void Grow() {
    std::vector<std::uint32_t> old(slots.size() * 2, kEmpty);
    slots.swap(old);
    for (std::uint32_t i = 0; i < entries.size(); ++i) {
      slots[Slot(entries[i].digest, entries[i].size)] = i;
    }
  }
};

ChunkDict::ChunkDict() : state_(std::make_unique<State>()) {}
ChunkDict::~ChunkDict() = default;
ChunkDict::ChunkDict(ChunkDict&&) noexcept = default;

void ChunkDict::Add(const Digest& digest, std::uint32_t size, ChunkRef ref) {
  State& s = *state_;
  if (s.entries.size() * 2 >= s.slots.size()) s.Grow();
  const std::size_t slot = s.Slot(digest, size);
  if (s.slots[slot] != kEmpty) return;  // the first one stays: it is what others refer to
  s.slots[slot] = static_cast<std::uint32_t>(s.entries.size());
  s.entries.push_back({digest, size, ref});
}

std::optional<ChunkRef> ChunkDict::Find(const Digest& digest, std::uint32_t size) const {
  const std::uint32_t index = state_->slots[state_->Slot(digest, size)];
  if (index == kEmpty) return std::nullopt;
  return state_->entries[index].ref;
}

Status ChunkDict::AddImage(const Metadata& metadata, const BuildOptions& options, BlobSet& blobs) {
  const ImageInfo& info = metadata.info();
  const auto differ = [](std::string_view what, std::string_view theirs, std::string_view ours) {
    return Error(
               Code::kInvalidArgument,
               fmt::format("the chunk dictionary has {} {}, the new image {}", what, theirs, ours))
        .WithHint("build with the dictionary's settings or without a dictionary");
  };
  if (info.chunk_size != options.chunk_size) {
    return differ("chunk size", std::to_string(info.chunk_size),
                  std::to_string(options.chunk_size));
  }
  if (info.compressor != options.compressor) {
    return differ("compressor", codec::AlgorithmName(info.compressor),
                  codec::AlgorithmName(options.compressor));
  }
  if (info.digester != options.digester) {
    return differ("digest", DigestAlgorithmName(info.digester),
                  DigestAlgorithmName(options.digester));
  }
  const std::size_t first = blobs.blobs.size();
  DAVIT_TRY(TreeFromBootstrap(metadata, blobs));
  for (std::size_t b = first; b < blobs.blobs.size(); ++b) {
    const std::vector<StoredChunk>& chunks = blobs.blobs[b].chunks;
    for (std::uint32_t c = 0; c < chunks.size(); ++c) {
      if (chunks[c].size == 0) continue;  // not in the chunk table
      Add(chunks[c].digest, chunks[c].size, {static_cast<std::uint32_t>(b), c});
    }
  }
  return {};
}

}  // namespace davit::rafs
