#include "common/codec/codec.h"

#include <fmt/format.h>
#include <isa-l/igzip_lib.h>
#include <lz4.h>
#include <zstd.h>

#include <climits>
#include <cstring>
#include <vector>

namespace davit::codec {
namespace {

struct ZstdDeleter {
  void operator()(ZSTD_DCtx* ctx) const { ZSTD_freeDCtx(ctx); }
  void operator()(ZSTD_CCtx* ctx) const { ZSTD_freeCCtx(ctx); }
};

Error WrongLength(std::string_view codec, std::size_t got, std::size_t wanted) {
  return Error(Code::kDataLoss,
               fmt::format("{} data decodes to {} bytes instead of {}", codec, got, wanted));
}

Status DecompressZstd(Bytes in, MutableBytes out) {
  thread_local std::unique_ptr<ZSTD_DCtx, ZstdDeleter> ctx(ZSTD_createDCtx());
  const std::size_t n =
      ZSTD_decompressDCtx(ctx.get(), out.data(), out.size(), in.data(), in.size());
  if (ZSTD_isError(n)) {
    return Error(Code::kDataLoss, fmt::format("zstd data is damaged: {}", ZSTD_getErrorName(n)));
  }
  if (n != out.size()) return WrongLength("zstd", n, out.size());
  return {};
}

Status DecompressLz4(Bytes in, MutableBytes out) {
  if (in.size() > INT_MAX || out.size() > INT_MAX) {
    return Error(Code::kDataLoss, "lz4 block is larger than 2 GiB");
  }
  const int n = LZ4_decompress_safe(reinterpret_cast<const char*>(in.data()),
                                    reinterpret_cast<char*>(out.data()),
                                    static_cast<int>(in.size()), static_cast<int>(out.size()));
  if (n < 0) return Error(Code::kDataLoss, "lz4 data is damaged");
  if (static_cast<std::size_t>(n) != out.size()) {
    return WrongLength("lz4", static_cast<std::size_t>(n), out.size());
  }
  return {};
}

Status DecompressGzip(Bytes in, MutableBytes out) {
  if (in.size() > UINT32_MAX || out.size() > UINT32_MAX) {
    return Error(Code::kDataLoss, "gzip unit is larger than 4 GiB");
  }
  thread_local auto state = std::make_unique<inflate_state>();
  isal_inflate_init(state.get());
  state->crc_flag = ISAL_GZIP;
  // igzip takes mutable pointers but does not write through next_in.
  state->next_in = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(in.data()));
  state->avail_in = static_cast<std::uint32_t>(in.size());
  state->next_out = reinterpret_cast<std::uint8_t*>(out.data());
  state->avail_out = static_cast<std::uint32_t>(out.size());
  const int rc = isal_inflate(state.get());
  if (rc != ISAL_DECOMP_OK)
    return Error(Code::kDataLoss, fmt::format("gzip data is damaged ({})", rc));
  if (state->total_out != out.size() || state->block_state != ISAL_BLOCK_FINISH) {
    return WrongLength("gzip", state->total_out, out.size());
  }
  return {};
}

class NoneCompressor final : public Compressor {
 public:
  std::size_t Bound(std::size_t size) const override { return size; }
  Result<std::size_t> Compress(Bytes in, MutableBytes out) override {
    if (out.size() < in.size()) return Error(Code::kInternal, "output buffer too small");
    if (!in.empty()) std::memcpy(out.data(), in.data(), in.size());
    return in.size();
  }
};

class Lz4Compressor final : public Compressor {
 public:
  Lz4Compressor() : state_(static_cast<std::size_t>(LZ4_sizeofState())) {}
  std::size_t Bound(std::size_t size) const override {
    return static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(size)));
  }
  Result<std::size_t> Compress(Bytes in, MutableBytes out) override {
    const int n =
        LZ4_compress_fast_extState(state_.data(), reinterpret_cast<const char*>(in.data()),
                                   reinterpret_cast<char*>(out.data()), static_cast<int>(in.size()),
                                   static_cast<int>(out.size()), 1);
    if (n <= 0) return Error(Code::kInternal, "lz4 output buffer too small");
    return static_cast<std::size_t>(n);
  }

 private:
  std::vector<char> state_;
};

class ZstdCompressor final : public Compressor {
 public:
  explicit ZstdCompressor(int level) : level_(level), ctx_(ZSTD_createCCtx()) {}
  std::size_t Bound(std::size_t size) const override { return ZSTD_compressBound(size); }
  Result<std::size_t> Compress(Bytes in, MutableBytes out) override {
    const std::size_t n =
        ZSTD_compressCCtx(ctx_.get(), out.data(), out.size(), in.data(), in.size(), level_);
    if (ZSTD_isError(n)) {
      return Error(Code::kInternal, fmt::format("zstd: {}", ZSTD_getErrorName(n)));
    }
    return n;
  }

 private:
  int level_;
  std::unique_ptr<ZSTD_CCtx, ZstdDeleter> ctx_;
};

}  // namespace

std::string_view AlgorithmName(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kNone:
      return "none";
    case Algorithm::kLz4Block:
      return "lz4_block";
    case Algorithm::kGzip:
      return "gzip";
    case Algorithm::kZstd:
      return "zstd";
  }
  return "unknown";
}

Result<Algorithm> ParseAlgorithm(std::string_view name) {
  if (name == "none") return Algorithm::kNone;
  if (name == "lz4" || name == "lz4_block") return Algorithm::kLz4Block;
  if (name == "gzip") return Algorithm::kGzip;
  if (name == "zstd") return Algorithm::kZstd;
  return Error(Code::kInvalidArgument, fmt::format("unknown compressor '{}'", name))
      .WithHint("use none, lz4_block or zstd");
}

Status Decompress(Algorithm algorithm, Bytes in, MutableBytes out) {
  switch (algorithm) {
    case Algorithm::kNone:
      if (in.size() != out.size()) return WrongLength("stored", in.size(), out.size());
      if (!in.empty()) std::memcpy(out.data(), in.data(), in.size());
      return {};
    case Algorithm::kLz4Block:
      return DecompressLz4(in, out);
    case Algorithm::kGzip:
      return DecompressGzip(in, out);
    case Algorithm::kZstd:
      return DecompressZstd(in, out);
  }
  return Error(Code::kUnsupported,
               fmt::format("unknown compressor id {}", static_cast<std::uint32_t>(algorithm)));
}

Result<std::unique_ptr<Compressor>> MakeCompressor(Algorithm algorithm, int level) {
  const bool has_levels = algorithm == Algorithm::kZstd;
  if (level != 0 && (!has_levels || level < 1 || level > 19)) {
    return Error(Code::kInvalidArgument, fmt::format("compression level {} is not possible with {}",
                                                     level, AlgorithmName(algorithm)))
        .WithHint("zstd takes 1 to 19, the others none");
  }
  switch (algorithm) {
    case Algorithm::kNone:
      return std::unique_ptr<Compressor>(std::make_unique<NoneCompressor>());
    case Algorithm::kLz4Block:
      return std::unique_ptr<Compressor>(std::make_unique<Lz4Compressor>());
    case Algorithm::kZstd:
      return std::unique_ptr<Compressor>(std::make_unique<ZstdCompressor>(level == 0 ? 3 : level));
    case Algorithm::kGzip:
      break;
  }
  return Error(Code::kUnsupported, "chunks are never written with gzip")
      .WithHint("use none, lz4_block or zstd");
}

}  // namespace davit::codec
