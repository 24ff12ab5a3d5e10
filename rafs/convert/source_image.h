#pragma once
// The image to convert: its manifests by platform, and their layers as trees.

#include <string>
#include <vector>

#include "rafs/convert/convert.h"

namespace davit::rafs {

/// One platform of a source image.
struct SourceManifest {
  oci::Descriptor descriptor;  // with platform where it is known
  oci::Manifest manifest;
  std::string config;  // JSON text
  oci::Platform platform;
};

/// The manifests that `options` selects. kNotFound, listing the platforms there are, when a wanted
/// one is missing (also in an image without an index); kFailedPrecondition when the image is a RAFS
/// image already.
Result<std::vector<SourceManifest>> SelectManifests(const Context& ctx,
                                                    registry::Repository& repository,
                                                    const std::string& tag,
                                                    const ConvertOptions& options);

/// The platform that an image config names; parts that it leaves out are empty.
Result<oci::Platform> PlatformOf(const std::string& config);

/// What the lowest layer is applied to: a root directory, mode 0755.
Tree EmptyTree();

/// kUnsupported, naming the layer, for encrypted layers and media types that are no tar.
Status CheckLayerType(const oci::Descriptor& layer);

}  // namespace davit::rafs
