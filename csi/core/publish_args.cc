#include "csi/core/publish_args.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace davit::csi {
namespace {

constexpr std::size_t kStringLimit = 128;  // the specification's, for all but maps and paths
constexpr std::size_t kPathLimit = 4095;

constexpr std::array<std::pair<AccessMode, std::string_view>, 8> kModes = {{
    {AccessMode::kUnknown, "UNKNOWN"},
    {AccessMode::kSingleNodeWriter, "SINGLE_NODE_WRITER"},
    {AccessMode::kSingleNodeReaderOnly, "SINGLE_NODE_READER_ONLY"},
    {AccessMode::kMultiNodeReaderOnly, "MULTI_NODE_READER_ONLY"},
    {AccessMode::kMultiNodeSingleWriter, "MULTI_NODE_SINGLE_WRITER"},
    {AccessMode::kMultiNodeMultiWriter, "MULTI_NODE_MULTI_WRITER"},
    {AccessMode::kSingleNodeSingleWriter, "SINGLE_NODE_SINGLE_WRITER"},
    {AccessMode::kSingleNodeMultiWriter, "SINGLE_NODE_MULTI_WRITER"},
}};

// Mount options that make sense for an image; "ro" and its kin are always in force.
constexpr std::array<std::string_view, 7> kMountFlags = {
    "ro", "nosuid", "nodev", "noexec", "noatime", "relatime", "nodiratime"};

bool HasControlCharacters(std::string_view text) {
  return std::ranges::any_of(text, [](char c) {
    return static_cast<unsigned char>(c) < ' ' || static_cast<unsigned char>(c) == 0x7f;
  });
}

Status CheckCapability(const VolumeCapability& capability) {
  if (!capability.present) {
    return Error(Code::kInvalidArgument, "volume_capability is missing");
  }
  if (capability.block) {
    return Error(Code::kInvalidArgument, "an image volume cannot be a block device")
        .WithHint("use volumeMode: Filesystem");
  }
  if (capability.mode == AccessMode::kUnknown) {
    return Error(Code::kInvalidArgument, "volume_capability.access_mode is missing");
  }
  if (!capability.fs_type.empty()) {
    return Error(Code::kInvalidArgument, fmt::format("fsType \"{}\": the file system of an image "
                                                     "volume cannot be chosen",
                                                     capability.fs_type.substr(0, kStringLimit)))
        .WithHint("leave fsType out");
  }
  if (!capability.volume_mount_group.empty()) {
    return Error(Code::kInvalidArgument,
                 "volume_mount_group: the group of an image's files cannot be changed")
        .WithHint("use fsGroupPolicy: None in the CSIDriver object");
  }
  for (const std::string& flag : capability.mount_flags) {
    if (std::ranges::find(kMountFlags, flag) == kMountFlags.end()) {
      // The value may be confidential by the specification: only its name is shown.
      return Error(Code::kInvalidArgument,
                   fmt::format("mount option \"{}\" does not fit a read-only image volume",
                               flag.substr(0, std::min(flag.find('='), std::size_t{32}))))
          .WithHint(fmt::format("allowed: {}", fmt::join(kMountFlags, ", ")));
    }
  }
  return {};
}

}  // namespace

bool AllowsSeveralTargets(AccessMode mode) {
  switch (mode) {
    case AccessMode::kMultiNodeReaderOnly:
    case AccessMode::kMultiNodeSingleWriter:
    case AccessMode::kMultiNodeMultiWriter:
    case AccessMode::kSingleNodeMultiWriter:
      return true;
    case AccessMode::kUnknown:
    case AccessMode::kSingleNodeWriter:
    case AccessMode::kSingleNodeReaderOnly:
    case AccessMode::kSingleNodeSingleWriter:
      return false;
  }
  return false;
}

std::string_view AccessModeName(AccessMode mode) {
  const auto it = std::ranges::find(kModes, mode, &decltype(kModes)::value_type::first);
  return it == kModes.end() ? "UNKNOWN" : it->second;
}

Result<AccessMode> ParseAccessMode(std::string_view name) {
  const auto it = std::ranges::find(kModes, name, &decltype(kModes)::value_type::second);
  if (it != kModes.end()) return it->first;
  return Error(Code::kInvalidArgument,
               fmt::format("unknown access mode \"{}\"", name.substr(0, 64)));
}

Status CheckVolumeId(const std::string& volume_id) {
  if (volume_id.empty()) return Error(Code::kInvalidArgument, "volume_id is missing");
  if (volume_id.size() > kStringLimit) {
    return Error(Code::kInvalidArgument, fmt::format("volume_id has {} bytes, more than {}",
                                                     volume_id.size(), kStringLimit))
        .WithHint("use a short volumeHandle; the image reference belongs into volumeAttributes");
  }
  if (HasControlCharacters(volume_id)) {
    return Error(Code::kInvalidArgument, "volume_id holds control characters");
  }
  return {};
}

Result<std::string> NormalPath(const std::string& path, std::string_view what) {
  if (path.empty()) return Error(Code::kInvalidArgument, fmt::format("{} is missing", what));
  if (path.size() > kPathLimit || path.find('\0') != std::string::npos) {
    return Error(Code::kInvalidArgument,
                 fmt::format("{} is not a path (longer than {} bytes, or with a zero byte)", what,
                             kPathLimit));
  }
  if (path[0] != '/') {
    return Error(Code::kInvalidArgument, fmt::format("{} is not absolute: {}", what, path));
  }
  std::string out;
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = std::string_view(path).substr(at, end - at);
    if (part == "." || part == "..") {
      return Error(Code::kInvalidArgument,
                   fmt::format("{} must not hold \".\" or \"..\": {}", what, path));
    }
    if (!part.empty()) {
      out += '/';
      out += part;
    }
    at = end + 1;
  }
  if (out.empty()) {
    return Error(Code::kInvalidArgument, fmt::format("{} must not be the root directory", what));
  }
  return out;
}

Result<PublishArgs> CheckPublish(const PublishRequest& request, bool allow_oci_layouts) {
  DAVIT_TRY(CheckVolumeId(request.volume_id));
  DAVIT_TRY(CheckCapability(request.capability));
  PublishArgs args;
  DAVIT_TRY_ASSIGN(args.spec, ParseVolumeSpec(request.attributes, allow_oci_layouts));
  args.mode = request.capability.mode;
  args.mount_flags = request.capability.mount_flags;
  std::ranges::sort(args.mount_flags);
  args.read_only = request.read_only;
  return args;
}

BindOptions BindOptionsOf(const PublishArgs& args) {
  const auto has = [&](std::string_view flag) {
    return std::ranges::find(args.mount_flags, flag) != args.mount_flags.end();
  };
  return BindOptions{.noexec = has("noexec"), .noatime = has("noatime")};
}

}  // namespace davit::csi
