#pragma once
// Between CSI messages and the types of csi/core. Only forward declarations, so that gRPC headers
// stay in .cc files.

#include "csi/core/node_ops.h"

namespace grpc {
class Status;
}
namespace csi::v1 {
class NodePublishVolumeRequest;
class NodeGetVolumeStatsResponse;
class VolumeHealth;
}  // namespace csi::v1

namespace davit::csi {

grpc::Status ToGrpc(const Status& status);
PublishRequest FromProto(const ::csi::v1::NodePublishVolumeRequest& request);
void ToProto(const VolumeStats& stats, ::csi::v1::NodeGetVolumeStatsResponse* reply);
void ToProto(const VolumeHealth& health, ::csi::v1::VolumeHealth* reply);

}  // namespace davit::csi
