#pragma once
// Checks of the arguments of node calls, before anything is looked up or touched.

#include <string>
#include <vector>

#include "common/base/secret.h"
#include "csi/core/node_ops.h"
#include "csi/core/volume_spec.h"

namespace davit::csi {

/// What decides whether two publish calls want the same; secrets and pod data do not.
struct PublishArgs {
  VolumeSpec spec;
  AccessMode mode = AccessMode::kUnknown;
  std::vector<std::string> mount_flags;
  bool read_only = false;
  bool operator==(const PublishArgs&) const = default;
};

/// Whether several targets on one node may show a volume that is used with `mode`.
bool AllowsSeveralTargets(AccessMode mode);

std::string_view AccessModeName(AccessMode mode);  // "SINGLE_NODE_WRITER"
Result<AccessMode> ParseAccessMode(std::string_view name);

/// kInvalidArgument when it is empty, longer than 128 bytes or holds control characters.
Status CheckVolumeId(const std::string& volume_id);

/// An absolute path without "." and "..", with single slashes; kInvalidArgument otherwise. `what`
/// is the field's name in the request.
Result<std::string> NormalPath(const std::string& path, std::string_view what);

/// All of a publish request but its target path.
Result<PublishArgs> CheckPublish(const PublishRequest& request, bool allow_oci_layouts);

BindOptions BindOptionsOf(const PublishArgs& args);

}  // namespace davit::csi
