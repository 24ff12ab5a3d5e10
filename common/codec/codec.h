#pragma once
// Whole-buffer compression of one unit. zstd, lz4 and zlib stay behind this header.

#include <cstdint>
#include <memory>
#include <string_view>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace davit::codec {

/// The values are those of the RAFS format (compressor ids of blob tables and superblocks).
enum class Algorithm : std::uint32_t { kNone = 0, kLz4Block = 1, kGzip = 2, kZstd = 3 };

std::string_view AlgorithmName(Algorithm algorithm);  // "none", "lz4_block", "gzip", "zstd"
/// kInvalidArgument, with the known names, for anything else. "lz4" means lz4_block.
Result<Algorithm> ParseAlgorithm(std::string_view name);

/// Fills `out` exactly; kDataLoss when the input is damaged or decodes to another length.
/// Never writes outside `out`. kNone copies. Thread-safe; keeps a context per thread.
Status Decompress(Algorithm algorithm, Bytes in, MutableBytes out);

/// Compresses independent buffers. Not thread-safe: one per thread.
class Compressor {
 public:
  virtual ~Compressor() = default;
  /// An upper bound for the output of `size` bytes of input.
  virtual std::size_t Bound(std::size_t size) const = 0;
  /// Bytes written to the front of `out` (which must hold Bound(in.size())). The same input gives
  /// the same output, whatever was compressed before.
  virtual Result<std::size_t> Compress(Bytes in, MutableBytes out) = 0;
};

/// `level` 0 means the algorithm's default (zstd 3). zstd: 1..19; lz4, none: 0 only.
Result<std::unique_ptr<Compressor>> MakeCompressor(Algorithm algorithm, int level = 0);

}  // namespace davit::codec
