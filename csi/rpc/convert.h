#pragma once
// Between CSI messages and the types of csi/core. For csi/rpc only: it shows gRPC headers.

#include <grpcpp/support/status.h>

#include "csi/core/node_ops.h"
#include "proto/csi.pb.h"

namespace davit::csi {

grpc::Status ToGrpc(const Status& status);
PublishRequest FromProto(const ::csi::v1::NodePublishVolumeRequest& request);
void ToProto(const VolumeStats& stats, ::csi::v1::NodeGetVolumeStatsResponse* reply);
void ToProto(const VolumeHealth& health, ::csi::v1::VolumeHealth* reply);

}  // namespace davit::csi
