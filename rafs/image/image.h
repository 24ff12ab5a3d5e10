#pragma once
// RAFS at the level of OCI images: which manifest of a reference is the RAFS one, where its
// bootstrap is, which blobs it uses. Conventions: docs/formats/rafs.md, "OCI image level".

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/context.h"
#include "rafs/image/table_memory.h"
#include "rafs/metadata/metadata.h"
#include "storage/registry/client.h"

namespace davit::rafs {

inline constexpr std::string_view kMediaTypeBlob = "application/vnd.oci.image.layer.nydus.blob.v1";
inline constexpr std::string_view kArtifactType = "application/vnd.nydus.image.manifest.v1+json";
inline constexpr std::string_view kOsFeature = "nydus.remoteimage.v1";
inline constexpr std::string_view kAnnotationBlob = "containerd.io/snapshot/nydus-blob";
inline constexpr std::string_view kAnnotationBootstrap = "containerd.io/snapshot/nydus-bootstrap";
inline constexpr std::string_view kAnnotationFsVersion = "containerd.io/snapshot/nydus-fs-version";
inline constexpr std::string_view kAnnotationReferenceBlobs =
    "containerd.io/snapshot/nydus-reference-blob-ids";

/// A RAFS image found behind a reference.
struct ImageRef {
  registry::Document manifest;  // of the RAFS variant
  oci::Manifest parsed;
  oci::Descriptor bootstrap;  // the layer that holds image/image.boot
  std::optional<oci::Platform> platform;
  std::string found_by;  // "manifest", "index", "referrer"
};

/// Resolves `tag_or_digest` for a platform: the manifest itself, a RAFS variant in the index, or a
/// referrer of the manifest. kNotFound, with what is there instead, when none is a RAFS image.
Result<ImageRef> FindImage(const Context& ctx, registry::Repository& repository,
                           const std::string& tag_or_digest, const oci::Platform& platform);

/// True when a manifest is one of a RAFS image.
bool IsRafsManifest(const oci::Manifest& manifest);

/// Fetches the bootstrap layer, verifies it, and writes `image.boot` (and the `<id>.blob.meta` it
/// brings) into `directory`, atomically. It is unpacked while it arrives, on a thread of its own;
/// nothing of it is looked at before its digest has been checked. Files that are there already are
/// kept: a second call costs nothing. What is written survives a crash of the process, and one of
/// the machine after SyncBootstrap().
Status FetchBootstrap(const Context& ctx, registry::Repository& repository, const ImageRef& image,
                      const std::string& directory);

Status SyncBootstrap(const std::string& directory);

/// The bootstrap in such a directory.
Result<std::unique_ptr<Metadata>> OpenBootstrap(const std::string& directory);

/// How to get one blob's map: the local `<id>.blob.meta` if the directory has it, else a ranged
/// read of the blob itself. Suitable as storage::BlobSpec::load_map (captures what it needs). What
/// the tables take is counted in `memory`, until the map is destroyed; kResourceExhausted when that
/// has no room.
std::function<Result<std::shared_ptr<const storage::BlobMap>>(const Context&)> MapLoader(
    std::shared_ptr<const Metadata> metadata, std::uint32_t blob,
    std::shared_ptr<storage::BlobSource> source, std::string directory,
    std::shared_ptr<TableMemory> memory = TableMemory::OfProcess());

/// Packs a bootstrap layer: tar with image/image.boot and image/<id>.blob.meta, gzip, reproducible.
struct BootstrapLayer {
  std::string gzip;     // the layer
  std::string diff_id;  // "sha256:…" of the tar
};
Result<BootstrapLayer> PackBootstrapLayer(
    Bytes bootstrap, const std::vector<std::pair<storage::BlobId, std::string>>& blob_metas);

}  // namespace davit::rafs
