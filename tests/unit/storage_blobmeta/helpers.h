#pragma once
// Shared by the tests of storage/blobmeta.

#include <string>

#include "common/codec/codec.h"
#include "storage/blobmeta/ci.h"

namespace davit::storage {

template <class T>
std::string Outcome(const Result<T>& result) {
  return result ? "ok" : std::string(CodeName(result.error().code()));
}

inline std::string Compress(codec::Algorithm algorithm, std::string_view in) {
  auto compressor = *codec::MakeCompressor(algorithm);
  std::string out(compressor->Bound(in.size()), '\0');
  out.resize(*compressor->Compress(AsBytes(in), std::as_writable_bytes(std::span(out))));
  return out;
}

inline BlobId SomeId() { return BlobId{std::string(64, 'b')}; }

/// What a bootstrap says about `array`, stored at 1 MiB of a blob of 1 MiB chunk data.
inline CiExpectation ExpectFor(std::string_view array, std::uint32_t chunks,
                               std::uint32_t features = kBlobAligned) {
  CiExpectation e;
  e.id = SomeId();
  e.features = features;
  e.compressor = codec::Algorithm::kZstd;
  e.chunk_count = chunks;
  e.ci_offset = 1 << 20;
  e.ci_compressed_size = e.ci_uncompressed_size = array.size();
  e.uncompressed_size = 16 << 20;
  e.data_size = 1 << 20;
  e.chunk_size = 1 << 20;
  return e;
}

inline CiHeader HeaderFor(const CiExpectation& e) {
  CiHeader h{};
  h.features = e.features;
  h.compressor = static_cast<std::uint32_t>(e.ci_compressor);
  h.record_count = e.chunk_count;
  h.offset = e.ci_offset;
  h.compressed_size = e.ci_compressed_size;
  h.uncompressed_size = e.ci_uncompressed_size;
  return h;
}

}  // namespace davit::storage
