// A layer's tar stream, as any registry may send it: build -> apply to a lower layer -> bootstrap.
// Whatever was accepted must be an image that the reader accepts.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "rafs/builder/builder.h"
#include "tests/support/tree/tar_writer.h"
#include "tests/unit/rafs_metadata/walk_everything.h"

namespace {

using davit::Result;
using davit::Status;

constexpr std::size_t kBlock = 512;
// Content that holes stand for may be long; a run of the fuzzer may not.
constexpr std::uint64_t kMostContent = 1ULL << 30;

std::uint64_t OctalSize(const std::string& tar, std::size_t header) {
  std::uint64_t size = 0;
  for (std::size_t i = header + 124; i < header + 136; ++i) {
    if (tar[i] >= '0' && tar[i] <= '7') size = size * 8 + static_cast<std::uint64_t>(tar[i] - '0');
  }
  return size;
}

// A changed header with a wrong sum would end the run at once, so the sums are made right.
void RepairSums(std::string& tar) {
  for (std::size_t at = 0; at + kBlock <= tar.size();) {
    if (std::all_of(tar.begin() + static_cast<std::ptrdiff_t>(at),
                    tar.begin() + static_cast<std::ptrdiff_t>(at + kBlock),
                    [](char c) { return c == '\0'; })) {
      at += kBlock;
      continue;
    }
    std::fill_n(tar.begin() + static_cast<std::ptrdiff_t>(at + 148), 8, ' ');
    unsigned sum = 0;
    for (std::size_t i = at; i < at + kBlock; ++i) sum += static_cast<unsigned char>(tar[i]);
    char digits[8];
    std::snprintf(digits, sizeof digits, "%06o", sum);
    std::copy_n(digits, 7, tar.begin() + static_cast<std::ptrdiff_t>(at + 148));
    const std::uint64_t blocks = (OctalSize(tar, at) + kBlock - 1) / kBlock;
    if (blocks >= (tar.size() - at) / kBlock) return;
    at += (1 + blocks) * kBlock;
  }
}

std::string LowerTar() {
  davit::testing::TarWriter tar;
  tar.Dir("d/").File("d/f", "lower").File("f", "x").Symlink("l", "d").Dir("a/").File("a/b", "b");
  return tar.Finish();
}

Result<davit::rafs::Tree> Build(const std::string& tar, std::uint32_t layer,
                                const davit::rafs::BuildOptions& options,
                                const std::string& directory, davit::rafs::BlobSet& blobs) {
  std::uint64_t seen = 0;
  std::stop_source stop;
  davit::Context ctx;
  ctx.stop = stop.get_token();
  return davit::rafs::BuildTar(ctx, davit::testing::StringStream(tar), layer, options, directory,
                               blobs, nullptr, [&](std::uint64_t bytes) {
                                 seen = bytes;
                                 if (seen > kMostContent) stop.request_stop();
                               });
}

Status RunOnce(const std::string& tar, const std::string& directory) {
  davit::rafs::BuildOptions options;
  options.threads = 1;
  options.compressor = davit::codec::Algorithm::kLz4Block;
  davit::rafs::BlobSet blobs;
  static const std::string kLower = LowerTar();
  DAVIT_TRY_ASSIGN(davit::rafs::Tree upper, Build(tar, 1, options, directory, blobs));
  DAVIT_TRY_ASSIGN(davit::rafs::Tree lower, Build(kLower, 0, options, directory, blobs));
  DAVIT_TRY(davit::rafs::ApplyLayer(lower, std::move(upper)));
  DAVIT_TRY_ASSIGN(const auto bootstrap, davit::rafs::WriteBootstrap(lower, blobs, options));
  const Status read = davit::rafs::WalkEverything(davit::AsBytes(bootstrap.bytes));
  if (!read.ok()) {
    std::fprintf(stderr, "the image cannot be read: %s\n", read.error().ToString().c_str());
    std::abort();
  }
  return {};
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  davit::log::SetLevel(davit::log::Level::kOff);
  std::string tar(reinterpret_cast<const char*>(data), size);
  RepairSums(tar);
  const auto directory = davit::TempDir::Create("fuzz-tar");
  if (!directory.ok()) std::abort();
  static_cast<void>(RunOnce(tar, directory->path()));
  return 0;
}
