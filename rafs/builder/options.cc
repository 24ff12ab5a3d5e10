#include <fmt/format.h>

#include <bit>

#include "rafs/builder/builder.h"
#include "rafs/layout/v6.h"

namespace davit::rafs {
namespace {

Error Bad(std::string what, std::string_view hint) {
  return Error(Code::kInvalidArgument, std::move(what)).WithHint(hint);
}

}  // namespace

Status BuildOptions::Validate() const {
  if (!std::has_single_bit(chunk_size) || chunk_size < v6::kMinChunkSize ||
      chunk_size > v6::kMaxChunkSize) {
    return Bad(fmt::format("chunk_size {} is not possible", chunk_size),
               "use a power of two from 4096 (4 KiB) to 16777216 (16 MiB)");
  }
  if (batch_size != 0 && (!std::has_single_bit(batch_size) || batch_size < v6::kMinChunkSize ||
                          batch_size > chunk_size)) {
    return Bad(
        fmt::format("batch_size {} is not possible with chunk_size {}", batch_size, chunk_size),
        "use 0 (no batches) or a power of two from 4096 to chunk_size");
  }
  if (compressor == codec::Algorithm::kGzip) {
    return Bad("compressor gzip cannot be written", "use none, lz4_block or zstd");
  }
  DAVIT_TRY(codec::MakeCompressor(compressor, compression_level));
  if (threads < 0 || threads > 1024) {
    return Bad(fmt::format("threads {} is not possible", threads),
               "use 0 (one per CPU) or a number up to 1024");
  }
  if (max_buffer_bytes < 4ULL * chunk_size) {
    return Bad(fmt::format("max_buffer_bytes {} is too small for chunk_size {}", max_buffer_bytes,
                           chunk_size),
               "allow at least four chunks");
  }
  for (const std::string& path : prefetch) {
    if (!path.starts_with('/')) {
      return Bad(fmt::format("prefetch path '{}' is not absolute", path),
                 "paths of the image begin with '/'");
    }
  }
  return {};
}

}  // namespace davit::rafs
