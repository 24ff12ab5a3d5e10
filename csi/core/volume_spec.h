#pragma once
// The volume attributes that users write, parsed. docs/csi.md documents them.

#include <map>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "daemon/api/types.h"

namespace davit::csi {

/// What image a volume shows and how. Value type; equal specs share one mount of a volume.
struct VolumeSpec {
  std::string image;
  daemon::api::Ready ready = daemon::api::Ready::kMounted;
  std::string platform;  // empty: the node's
  bool plain_http = false;
  bool fill = true;
  bool operator==(const VolumeSpec&) const = default;
};

/// Keys that Kubernetes adds by itself ("csi.storage.k8s.io/pod.name"); they are no options.
bool IsKubernetesKey(std::string_view key);

/// kInvalidArgument, naming the key and, for an unknown one, the nearest that exists.
Result<VolumeSpec> ParseVolumeSpec(const std::map<std::string, std::string>& attributes,
                                   bool allow_oci_layouts);

/// "csi-" and 32 hex digits: the daemon's name for the mount of `spec` for one volume.
std::string MountIdOf(std::string_view volume_id, const VolumeSpec& spec);

}  // namespace davit::csi
