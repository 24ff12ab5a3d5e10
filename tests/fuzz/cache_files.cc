// What the cache finds beside its data after a restart: the ready bits and the order of accesses.
// First byte: which of them. Checksums are set right in three inputs of four: without that nothing
// behind them would ever be reached.

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "common/base/fd.h"
#include "common/digest/digest.h"
#include "storage/cache/blob_core.h"
#include "storage/cache/ready_file.h"
#include "tests/support/fuzz/fuzz_input.h"

namespace {

using davit::storage::ReadyFile;

constexpr std::size_t kBlock = 4096;
constexpr std::size_t kSector = 512;
constexpr std::uint32_t kMostChunks = 33'000;  // two pages of bits

class MemoryFile final : public davit::storage::CacheFile {
 public:
  explicit MemoryFile(std::string* content) : content_(*content) {}
  int fd() const override { return -1; }
  davit::Result<std::size_t> ReadAt(std::uint64_t offset, davit::MutableBytes out) override {
    if (offset >= content_.size()) return std::size_t{0};
    const std::size_t n = std::min<std::size_t>(out.size(), content_.size() - offset);
    std::memcpy(out.data(), content_.data() + offset, n);
    return n;
  }
  davit::Status WriteAt(std::uint64_t offset, davit::Bytes data) override {
    if (content_.size() < offset + data.size()) content_.resize(offset + data.size());
    std::memcpy(content_.data() + offset, data.data(), data.size());
    return {};
  }
  davit::Status SyncData() override { return {}; }
  davit::Status PunchHole(davit::ByteRange) override { return {}; }
  davit::Status Truncate(std::uint64_t size) override {
    content_.resize(size);
    return {};
  }
  davit::Result<std::uint64_t> Size() override { return content_.size(); }
  davit::Result<std::uint64_t> AllocatedBytes() override { return content_.size(); }

 private:
  std::string& content_;
};

void Check(bool holds) {
  if (!holds) std::abort();
}

template <class T>
T At(const std::string& text, std::size_t offset) {
  T value{};
  if (offset + sizeof value <= text.size()) std::memcpy(&value, text.data() + offset, sizeof value);
  return value;
}

template <class T>
void Put(std::string& text, std::size_t offset, T value) {
  if (offset + sizeof value <= text.size()) std::memcpy(text.data() + offset, &value, sizeof value);
}

/// The layout is that of ready_file.cc: sectors of 504 bytes of content and a tag each.
void FixReadyFile(std::string& file) {
  if (file.size() < 64) return;
  std::memcpy(file.data(), "DVTREADY", 8);
  Put<std::uint32_t>(file, 8, 1);
  Put<std::uint32_t>(file, 12, At<std::uint32_t>(file, 12) % kMostChunks);
  Put(file, 60, davit::Crc32c(davit::AsBytes(file).first(60)));
  for (std::size_t block = 1; (block + 1) * kBlock <= file.size(); ++block) {
    std::string page;
    for (std::size_t at = block * kBlock; at < (block + 1) * kBlock; at += kSector) {
      page += file.substr(at, kSector - 8);
      Put(file, at + kSector - 8, At<std::uint64_t>(file, block * kBlock + kSector - 8));
    }
    Put(file, block * kBlock + 4, static_cast<std::uint32_t>((block - 1) / 2));
    Put(page, 4, static_cast<std::uint32_t>((block - 1) / 2));
    Put(file, block * kBlock + 16, At<std::uint64_t>(file, 24));
    Put(page, 16, At<std::uint64_t>(file, 24));
    Put(file, block * kBlock, davit::Crc32c(davit::AsBytes(page).subspan(4)));
  }
}

void Ready(std::string file, bool fix) {
  if (fix) FixReadyFile(file);
  ReadyFile::Subject subject{.chunk_count = At<std::uint32_t>(file, 12),
                             .data_size = At<std::uint64_t>(file, 16)};
  if (file.size() >= 56) std::memcpy(subject.identity.bytes.data(), file.data() + 24, 32);
  if (subject.chunk_count == 0 || subject.chunk_count > kMostChunks) return;
  ReadyFile ready(std::make_unique<MemoryFile>(&file));
  const auto loaded = ready.Load(subject);
  Check(loaded.ok());
  if (!*loaded) return;
  std::vector<bool> before;
  for (std::uint32_t i = 0; i < subject.chunk_count; ++i) before.push_back(ready.IsDurable(i));
  // Whatever was found there: what is set and cleared next is what the next start finds.
  const std::uint32_t on = subject.chunk_count / 2;
  const std::uint32_t off = subject.chunk_count - 1;
  Check(ready.Update(std::vector{on}, std::vector{off}).ok());
  ReadyFile again(std::make_unique<MemoryFile>(&file));
  const auto reloaded = again.Load(subject);
  Check(reloaded.ok() && *reloaded);
  before[on] = true;
  before[off] = false;
  for (std::uint32_t i = 0; i < subject.chunk_count; ++i) Check(again.IsDurable(i) == before[i]);
}

void Access(std::string file, bool fix) {
  if (fix && file.size() >= 56) {
    std::memcpy(file.data(), "DVTACCES", 8);
    Put<std::uint32_t>(file, 8, 1);
    Put(file, 12, static_cast<std::uint32_t>((file.size() - 56) / 4));
    Put(file, 52, davit::Crc32c(davit::AsBytes(file).subspan(56)));
  }
  const davit::UniqueFd memory(::memfd_create("access", MFD_CLOEXEC));
  Check(davit::WriteFull(memory.get(), davit::AsBytes(file)).ok());
  const auto order =
      davit::storage::ReadAccessFile("/proc/self/fd/" + std::to_string(memory.get()));
  Check(order.size() * 4 <= file.size());
  if (fix && file.size() >= 56 && file.size() % 4 == 0) Check(order.size() * 4 + 56 == file.size());
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  davit::testing::FuzzInput input(data, size);
  const std::uint8_t what = input.Byte();
  const std::string file(input.Rest());
  const bool fix = what % 4 != 0;
  if ((what & 4) != 0) {
    Ready(file, fix);
  } else {
    Access(file, fix);
  }
  return 0;
}
