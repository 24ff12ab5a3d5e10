#include "storage/cache/ready_file.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <set>

namespace davit::storage {
namespace {

constexpr std::size_t kBlock = 4096;
constexpr std::size_t kSectors = kBlock / 512;
constexpr std::size_t kWordsPerSector = 63;
constexpr std::size_t kHeadWords = 3;
constexpr std::size_t kWordsPerPage = kSectors * kWordsPerSector - kHeadWords;
constexpr std::uint32_t kChunksPerPage = kWordsPerPage * 64;
constexpr std::array<char, 8> kMagic = {'D', 'V', 'T', 'R', 'E', 'A', 'D', 'Y'};
constexpr std::uint32_t kVersion = 1;

struct Header {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t chunk_count;
  std::uint64_t data_size;
  Digest identity;
  std::uint32_t reserved;
  std::uint32_t crc;  // of all before it
};
static_assert(sizeof(Header) == 64);

// What one block says, and its form on disk. A tag that is new with every write ends every sector:
// without it, sectors of two writes that were both torn could add up to a valid block.
struct PageBlock {
  std::uint32_t crc;  // of all after it
  std::uint32_t index;
  std::uint64_t sequence;
  std::uint64_t salt;  // from the identity: pages of an older table are not mistaken for this one's
  std::array<std::uint64_t, kWordsPerPage> words;
};
static_assert(sizeof(PageBlock) == kSectors * kWordsPerSector * 8);

struct Sector {
  std::array<std::uint64_t, kWordsPerSector> words;
  std::uint64_t tag;
};
using RawBlock = std::array<Sector, kSectors>;
static_assert(sizeof(RawBlock) == kBlock);

RawBlock ToRaw(const PageBlock& block, std::uint64_t tag) {
  RawBlock raw;
  const auto* from = reinterpret_cast<const std::byte*>(&block);
  for (std::size_t i = 0; i < kSectors; ++i) {
    std::memcpy(raw[i].words.data(), from + i * sizeof raw[i].words, sizeof raw[i].words);
    raw[i].tag = tag;
  }
  return raw;
}

// False when the sectors are not of one write.
bool FromRaw(const RawBlock& raw, PageBlock& block) {
  auto* to = reinterpret_cast<std::byte*>(&block);
  for (std::size_t i = 0; i < kSectors; ++i) {
    if (raw[i].tag != raw[0].tag) return false;
    std::memcpy(to + i * sizeof raw[i].words, raw[i].words.data(), sizeof raw[i].words);
  }
  return true;
}

Bytes BytesOf(const auto& object) { return std::as_bytes(std::span(&object, 1)); }

std::uint64_t Salt(const Digest& identity) {
  std::uint64_t salt;
  std::memcpy(&salt, identity.bytes.data(), sizeof salt);
  return salt;
}

// Also where the numbers begin anew: a file may hold any of them, and what is written next has to
// win against it.
bool IsNewer(std::uint64_t a, std::uint64_t b) { return static_cast<std::int64_t>(a - b) > 0; }

std::uint64_t SlotOffset(std::uint32_t page, std::uint32_t slot) {
  return kBlock * (1 + 2 * std::uint64_t{page} + slot);
}

std::uint32_t HeaderCrc(const Header& header) {
  return Crc32c(BytesOf(header).first(offsetof(Header, crc)));
}
std::uint32_t PageCrc(const PageBlock& block) {
  return Crc32c(BytesOf(block).subspan(offsetof(PageBlock, index)));
}

}  // namespace

Result<std::optional<ReadyFile::Subject>> ReadyFile::ReadSubject() {
  Header header{};
  DAVIT_TRY_ASSIGN(const std::size_t got,
                   file_->ReadAt(0, std::as_writable_bytes(std::span(&header, 1))));
  if (got != sizeof header || header.magic != kMagic || header.version != kVersion ||
      header.crc != HeaderCrc(header)) {
    return std::optional<Subject>();
  }
  return std::optional(Subject{header.identity, header.chunk_count, header.data_size});
}

Result<bool> ReadyFile::Load(const Subject& subject) {
  DAVIT_TRY_ASSIGN(const std::optional<Subject> found, ReadSubject());
  if (!found || *found != subject) return false;
  subject_ = subject;
  words_.assign(subject.chunk_count / 64 + 1, 0);
  pages_.assign(subject.chunk_count / kChunksPerPage + 1, Page{});
  for (std::uint32_t page = 0; page < pages_.size(); ++page) DAVIT_TRY(ReadPage(page));
  // Bits past the end would count chunks that do not exist.
  words_.back() &= (1ULL << (subject.chunk_count % 64)) - 1;
  return true;
}

Status ReadyFile::ReadPage(std::uint32_t page) {
  bool found = false;
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    RawBlock raw{};
    PageBlock block{};
    DAVIT_TRY_ASSIGN(const std::size_t got,
                     file_->ReadAt(SlotOffset(page, slot), std::as_writable_bytes(std::span(raw))));
    if (got != sizeof raw || !FromRaw(raw, block) || block.crc != PageCrc(block) ||
        block.index != page || block.salt != Salt(subject_.identity) ||
        (found && !IsNewer(block.sequence, pages_[page].sequence))) {
      continue;
    }
    found = true;
    pages_[page].sequence = block.sequence;
    pages_[page].slot = static_cast<std::uint8_t>(slot);
    const std::size_t first = page * kWordsPerPage;
    const std::size_t count = std::min(kWordsPerPage, words_.size() - first);
    std::copy_n(block.words.begin(), count, words_.begin() + static_cast<std::ptrdiff_t>(first));
  }
  return {};
}

Status ReadyFile::Invalidate() {
  if (untouched_) return {};
  DAVIT_TRY(file_->Truncate(0));
  return file_->SyncData();
}

Status ReadyFile::Create(const Subject& subject) {
  Header header{.magic = kMagic,
                .version = kVersion,
                .chunk_count = subject.chunk_count,
                .data_size = subject.data_size,
                .identity = subject.identity,
                .reserved = 0,
                .crc = 0};
  header.crc = HeaderCrc(header);
  untouched_ = false;
  DAVIT_TRY(file_->WriteAt(0, BytesOf(header)));
  // All of it has its place now: on a disk that is full, bits must still be taken back.
  const std::size_t pages = subject.chunk_count / kChunksPerPage + 1;
  DAVIT_TRY(file_->WriteAt(SlotOffset(0, 0), std::vector<std::byte>(pages * 2 * kBlock)));
  subject_ = subject;
  words_.assign(subject.chunk_count / 64 + 1, 0);
  pages_.assign(subject.chunk_count / kChunksPerPage + 1, Page{});
  return {};
}

Status ReadyFile::WritePage(std::uint32_t page, std::span<const std::uint64_t> words) {
  PageBlock block{};
  block.index = page;
  block.sequence = ++pages_[page].sequence;
  block.salt = Salt(subject_.identity);
  const std::size_t first = page * kWordsPerPage;
  const std::span<const std::uint64_t> part =
      words.subspan(first, std::min(kWordsPerPage, words.size() - first));
  std::copy(part.begin(), part.end(), block.words.begin());
  block.crc = PageCrc(block);
  const RawBlock raw = ToRaw(block, random_());
  return file_->WriteAt(SlotOffset(page, 1U - pages_[page].slot), BytesOf(raw));
}

Status ReadyFile::Update(std::span<const std::uint32_t> set, std::span<const std::uint32_t> clear) {
  std::vector<std::uint64_t> words = words_;
  std::set<std::uint32_t> touched;
  for (const std::uint32_t chunk : set) {
    words[chunk / 64] |= 1ULL << (chunk % 64);
    touched.insert(chunk / kChunksPerPage);
  }
  for (const std::uint32_t chunk : clear) {
    words[chunk / 64] &= ~(1ULL << (chunk % 64));
    touched.insert(chunk / kChunksPerPage);
  }
  for (std::uint32_t page = 0; page < pages_.size(); ++page) {
    if (pages_[page].repeat) touched.insert(page);
  }
  if (touched.empty()) return {};
  for (const std::uint32_t page : touched) pages_[page].repeat = true;
  for (const std::uint32_t page : touched) DAVIT_TRY(WritePage(page, words));
  DAVIT_TRY(file_->SyncData());
  for (const std::uint32_t page : touched) {
    pages_[page].repeat = false;
    pages_[page].slot = static_cast<std::uint8_t>(1U - pages_[page].slot);
  }
  words_ = std::move(words);
  return {};
}

}  // namespace davit::storage
