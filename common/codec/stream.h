#pragma once
// Streaming decompression (layers of images) and compression (bootstrap layers).

#include <functional>
#include <memory>
#include <string>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace davit::codec {

/// A pull stream of bytes. Not thread-safe.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  /// At least one byte, or 0 at the end. Errors are final.
  virtual Result<std::size_t> Read(MutableBytes out) = 0;
};

enum class StreamFormat { kPlain, kGzip, kZstd };
/// By magic number; anything unknown is kPlain. Eight bytes are enough.
StreamFormat DetectFormat(Bytes head);

/// Decodes `in` (multi-member gzip and multi-frame zstd included). With `kPlain` it returns `in`.
/// kDataLoss for damaged or truncated input.
Result<std::unique_ptr<ByteStream>> MakeDecoder(StreamFormat format,
                                                std::unique_ptr<ByteStream> in);
/// Detects the format from the first bytes of `in`.
Result<std::unique_ptr<ByteStream>> MakeDetectingDecoder(std::unique_ptr<ByteStream> in);

/// One reproducible gzip member: no name, time 0, OS byte 255.
Result<std::string> GzipCompress(Bytes in, int level = 6);
/// kResourceExhausted when the output would exceed `limit` bytes.
Result<std::string> Gunzip(Bytes in, std::uint64_t limit);

}  // namespace davit::codec
