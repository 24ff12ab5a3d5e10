#include "csi/rpc/convert.h"

#include <grpcpp/support/status.h>

#include <algorithm>
#include <limits>
#include <string>

#include "proto/csi.pb.h"

namespace davit::csi {
namespace {

// It travels in a header, of which clients accept 8 KiB in all, percent-encoded.
constexpr std::size_t kMessageLimit = 2000;

grpc::StatusCode GrpcCode(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case Code::kNotFound:
      return grpc::StatusCode::NOT_FOUND;
    case Code::kAlreadyExists:
      return grpc::StatusCode::ALREADY_EXISTS;
    case Code::kPermissionDenied:
      return grpc::StatusCode::PERMISSION_DENIED;
    case Code::kUnauthenticated:
      return grpc::StatusCode::UNAUTHENTICATED;
    case Code::kUnavailable:
      return grpc::StatusCode::UNAVAILABLE;
    case Code::kDeadlineExceeded:
      return grpc::StatusCode::DEADLINE_EXCEEDED;
    case Code::kResourceExhausted:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case Code::kCancelled:
      return grpc::StatusCode::CANCELLED;
    case Code::kDataLoss:
      return grpc::StatusCode::DATA_LOSS;
    // UNIMPLEMENTED would say that the call is not there; here it is the image or the kernel.
    case Code::kUnsupported:
    case Code::kFailedPrecondition:
      return grpc::StatusCode::FAILED_PRECONDITION;
    case Code::kAborted:
      return grpc::StatusCode::ABORTED;
    case Code::kInternal:
      return grpc::StatusCode::INTERNAL;
  }
  return grpc::StatusCode::INTERNAL;
}

// Not in the middle of a UTF-8 character.
std::string Shortened(std::string text) {
  if (text.size() <= kMessageLimit) return text;
  std::size_t end = kMessageLimit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
  return text + "...";
}

AccessMode FromProto(::csi::v1::VolumeCapability::AccessMode::Mode mode) {
  using Mode = ::csi::v1::VolumeCapability::AccessMode;
  switch (mode) {
    case Mode::SINGLE_NODE_WRITER:
      return AccessMode::kSingleNodeWriter;
    case Mode::SINGLE_NODE_READER_ONLY:
      return AccessMode::kSingleNodeReaderOnly;
    case Mode::MULTI_NODE_READER_ONLY:
      return AccessMode::kMultiNodeReaderOnly;
    case Mode::MULTI_NODE_SINGLE_WRITER:
      return AccessMode::kMultiNodeSingleWriter;
    case Mode::MULTI_NODE_MULTI_WRITER:
      return AccessMode::kMultiNodeMultiWriter;
    case Mode::SINGLE_NODE_SINGLE_WRITER:
      return AccessMode::kSingleNodeSingleWriter;
    case Mode::SINGLE_NODE_MULTI_WRITER:
      return AccessMode::kSingleNodeMultiWriter;
    default:
      return AccessMode::kUnknown;
  }
}

std::int64_t Signed(std::uint64_t value) {
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return static_cast<std::int64_t>(std::min(value, kMax));
}

}  // namespace

grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {GrpcCode(status.error().code()), Shortened(status.error().ToString())};
}

PublishRequest FromProto(const ::csi::v1::NodePublishVolumeRequest& request) {
  PublishRequest out;
  out.volume_id = request.volume_id();
  out.target_path = request.target_path();
  out.staging_path = request.staging_target_path();
  out.attributes.insert(request.volume_context().begin(), request.volume_context().end());
  for (const auto& [key, value] : request.secrets()) out.secrets.emplace(key, Secret(value));
  out.read_only = request.readonly();
  const auto& capability = request.volume_capability();
  // A capability that says neither block nor mount says nothing.
  out.capability.present =
      request.has_volume_capability() && (capability.has_block() || capability.has_mount());
  out.capability.block = capability.has_block();
  out.capability.fs_type = capability.mount().fs_type();
  out.capability.mount_flags.assign(capability.mount().mount_flags().begin(),
                                    capability.mount().mount_flags().end());
  out.capability.volume_mount_group = capability.mount().volume_mount_group();
  out.capability.mode = FromProto(capability.access_mode().mode());
  return out;
}

void ToProto(const VolumeStats& stats, ::csi::v1::NodeGetVolumeStatsResponse* reply) {
  auto* bytes = reply->add_usage();
  bytes->set_unit(::csi::v1::VolumeUsage::BYTES);
  bytes->set_total(Signed(stats.total_bytes));
  bytes->set_used(Signed(stats.used_bytes));
  bytes->set_available(Signed(stats.total_bytes - std::min(stats.used_bytes, stats.total_bytes)));
  if (!stats.inodes_known) return;
  auto* inodes = reply->add_usage();
  inodes->set_unit(::csi::v1::VolumeUsage::INODES);
  inodes->set_total(Signed(stats.total_inodes));
  inodes->set_used(Signed(stats.used_inodes));
  inodes->set_available(
      Signed(stats.total_inodes - std::min(stats.used_inodes, stats.total_inodes)));
}

void ToProto(const VolumeHealth& health, ::csi::v1::VolumeHealth* reply) {
  if (health.status == VolumeHealth::Status::kHealthy) return;
  auto* entry = reply->add_health_statuses();
  switch (health.status) {
    case VolumeHealth::Status::kDegraded:
      entry->set_status(::csi::v1::DEGRADED);
      break;
    case VolumeHealth::Status::kDataLoss:
      entry->set_status(::csi::v1::DATA_LOSS);
      break;
    case VolumeHealth::Status::kInaccessible:
    case VolumeHealth::Status::kHealthy:
      entry->set_status(::csi::v1::INACCESSIBLE);
      break;
  }
  entry->set_reason(health.reason);
  entry->set_message(health.message);
}

}  // namespace davit::csi
