#pragma once
// CSI node semantics without gRPC: validation, idempotency, journal, mounts. The rules and codes
// are those of the CSI specification 1.13 and of what kubelet does with them; see docs/csi.md.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/context.h"
#include "common/base/secret.h"
#include "csi/core/mounter.h"
#include "daemon/client/client.h"

namespace davit::csi {

enum class AccessMode {
  kUnknown,
  kSingleNodeWriter,
  kSingleNodeReaderOnly,
  kMultiNodeReaderOnly,
  kMultiNodeSingleWriter,
  kMultiNodeMultiWriter,
  kSingleNodeSingleWriter,
  kSingleNodeMultiWriter,
};

struct VolumeCapability {
  bool present = false;
  bool block = false;
  std::string fs_type;
  std::vector<std::string> mount_flags;
  std::string volume_mount_group;
  AccessMode mode = AccessMode::kUnknown;
};

struct PublishRequest {
  std::string volume_id, target_path, staging_path;
  std::map<std::string, std::string> attributes;  // volume context
  std::map<std::string, Secret> secrets;
  VolumeCapability capability;
  bool read_only = false;
};

/// What is wrong with a volume, in the terms of CSI 1.13.
struct VolumeHealth {
  enum class Status { kHealthy, kDegraded, kInaccessible, kDataLoss };
  Status status = Status::kHealthy;
  std::string reason;   // CamelCase, for machines; empty when healthy
  std::string message;  // what, why and the next step
};

struct VolumeStats {
  std::uint64_t total_bytes = 0, used_bytes = 0, total_inodes = 0, used_inodes = 0;
  bool inodes_known = false;  // false when the mount did not answer in time
  bool abnormal = false;
  std::string condition;
};

/// Errors use Code; rpc/ maps them: kFailedPrecondition, kAborted, kAlreadyExists and so on have
/// gRPC codes of the same name. Thread-safe.
class NodeOps {
 public:
  struct Options {
    std::string node_id;
    std::string state_dir;  // journal, mounts/, lock; one process at a time
    std::uint64_t max_volumes = 0;
    /// Whether "oci:PATH" may be an image. Off: whoever may create a pod could read the node's
    /// files with it.
    bool allow_oci_layouts = false;
  };
  /// Reads the journal. `daemon` must outlive it. kFailedPrecondition when another process owns
  /// the state directory.
  static Result<std::unique_ptr<NodeOps>> Create(const Options& options, daemon::Client& daemon);
  /// The same over any mounter.
  static Result<std::unique_ptr<NodeOps>> Create(const Options& options, daemon::Client& daemon,
                                                 std::shared_ptr<Mounter> mounter);
  virtual ~NodeOps() = default;

  virtual Status Publish(const Context& ctx, const PublishRequest& request) = 0;
  virtual Status Unpublish(const Context& ctx, const std::string& volume_id,
                           const std::string& target_path) = 0;
  virtual Result<VolumeStats> Stats(const Context& ctx, const std::string& volume_id,
                                    const std::string& volume_path) = 0;
  /// An empty path means any target of the volume.
  virtual Result<VolumeHealth> Health(const Context& ctx, const std::string& volume_id,
                                      const std::string& volume_path) = 0;
  virtual std::string NodeId() const = 0;
  virtual std::uint64_t MaxVolumes() const = 0;
  /// Makes the mounts agree with the journal after a restart: broken ones are mounted again, what
  /// nobody asked for is removed. Safe to call at any time.
  virtual Status Recover(const Context& ctx) = 0;
};

}  // namespace davit::csi
