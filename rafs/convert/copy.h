#pragma once
// Copies objects between repositories as they are.

#include <string>

#include "common/base/context.h"
#include "rafs/convert/convert.h"
#include "storage/registry/client.h"

namespace davit::rafs {

/// Nothing is sent when the target has it; mounted where both are of one registry; else streamed
/// through a file in `work_dir`. The digest is verified on the way.
Status CopyBlob(const Context& ctx, registry::Repository& source, registry::Repository& target,
                const oci::Descriptor& blob, const std::string& work_dir,
                const ConvertListener& listener = {});

/// A manifest with its config and layers, by digest.
Status CopyManifest(const Context& ctx, registry::Repository& source, registry::Repository& target,
                    const oci::Descriptor& manifest, const std::string& work_dir,
                    const ConvertListener& listener = {});

/// A tag or digest with everything below it (all platforms of an index), under another name.
Result<oci::Descriptor> CopyImage(const Context& ctx, registry::Repository& source,
                                  const std::string& source_tag, registry::Repository& target,
                                  const std::string& target_tag, const std::string& work_dir,
                                  const ConvertListener& listener = {});

}  // namespace davit::rafs
