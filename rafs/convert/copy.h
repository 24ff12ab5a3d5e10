#pragma once
// Copies objects between repositories as they are.

#include <string>

#include "common/base/context.h"
#include "storage/registry/client.h"

namespace davit::rafs {

/// Nothing is sent when the target has it; mounted where both are of one registry; else streamed
/// through a file in `work_dir`. The digest is verified on the way.
Status CopyBlob(const Context& ctx, registry::Repository& source, registry::Repository& target,
                const oci::Descriptor& blob, const std::string& work_dir);

/// A manifest with its config and layers, by digest.
Status CopyManifest(const Context& ctx, registry::Repository& source, registry::Repository& target,
                    const oci::Descriptor& manifest, const std::string& work_dir);

}  // namespace davit::rafs
