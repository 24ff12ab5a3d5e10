#pragma once
// The bootstrap layer of an image: a tar with image/image.boot and image/<id>.blob.meta. Internal
// to rafs/image and its tests. libarchive stays in bootstrap_layer.cc.

#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "common/codec/stream.h"
#include "storage/blob/blob.h"

namespace davit::rafs {

inline constexpr std::string_view kBootstrapName = "image.boot";
inline constexpr std::string_view kBlobMetaSuffix = ".blob.meta";
inline constexpr std::uint64_t kMaxBootstrapBytes = 4ULL << 30;

/// A file of the layer that a reader wants: the bootstrap, or the chunk info of a blob.
struct LayerFile {
  std::optional<storage::BlobId> blob;  // nothing: the bootstrap
  std::uint64_t size = 0;               // as the tar says
};
/// Gives the place for a file's content.
using LayerFileOpener = std::function<Result<storage::ByteSink>(const LayerFile&)>;

/// Reads a layer (tar, plain or compressed with gzip or zstd) and passes on the content of the
/// files above, in whatever directory they are; everything else is skipped. Names do not lead
/// anywhere: only their last part is looked at, and a blob's has to be an id. kDataLoss for damaged
/// archives, a second bootstrap and contents shorter than announced; kNotFound without a bootstrap;
/// kResourceExhausted above the limits (4 GiB a bootstrap, sizes and number of entries bounded).
Status ReadBootstrapLayer(std::unique_ptr<codec::ByteStream> layer, const LayerFileOpener& open);

}  // namespace davit::rafs
