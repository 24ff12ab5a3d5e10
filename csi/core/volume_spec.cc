#include "csi/core/volume_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "common/base/nearest.h"
#include "common/digest/digest.h"

namespace davit::csi {
namespace {

// The specification's limit for a whole map.
constexpr std::size_t kMapLimit = 4096;

constexpr std::array<std::string_view, 5> kKeys = {"image", "ready", "platform", "plainHTTP",
                                                   "fill"};

Error UnknownKey(const std::string& key) {
  const std::string shown = key.substr(0, 64);
  const auto nearest = std::ranges::min_element(kKeys, {}, [&](std::string_view known) {
    return EditDistance(shown, known, Case::kIgnored);
  });
  Error error(Code::kInvalidArgument, fmt::format("unknown volume attribute \"{}\"", shown));
  if (EditDistance(shown, *nearest, Case::kIgnored) <= 3) {
    return std::move(error).WithHint(fmt::format("did you mean \"{}\"?", *nearest));
  }
  return std::move(error).WithHint(fmt::format("known attributes: {}", fmt::join(kKeys, ", ")));
}

Result<bool> ParseBool(std::string_view key, const std::string& value) {
  if (value == "true") return true;
  if (value == "false") return false;
  return Error(Code::kInvalidArgument, fmt::format("volume attribute {}: \"{}\" is neither true "
                                                   "nor false",
                                                   key, value.substr(0, 32)))
      .WithHint(fmt::format("write {}: \"true\" or \"false\", in quotes", key));
}

Result<std::string> ParsePlatform(const std::string& value) {
  const auto allowed = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '-';
  };
  std::size_t parts = 1;
  std::size_t length = 0;
  bool good = value.size() <= 64;
  for (const char c : value) {
    if (c == '/') {
      good = good && length > 0;
      ++parts;
      length = 0;
    } else {
      good = good && allowed(c);
      ++length;
    }
  }
  if (!good || length == 0 || parts < 2 || parts > 3) {
    return Error(
               Code::kInvalidArgument,
               fmt::format("volume attribute platform: \"{}\" is no platform", value.substr(0, 64)))
        .WithHint("write os/architecture or os/architecture/variant, e.g. linux/arm64");
  }
  return value;
}

Result<std::string> ParseImage(const std::string& value, bool allow_oci_layouts) {
  const bool strange = std::ranges::any_of(value, [](char c) {
    return static_cast<unsigned char>(c) <= ' ' || static_cast<unsigned char>(c) == 0x7f;
  });
  if (value.empty() || strange) {
    return Error(Code::kInvalidArgument,
                 value.empty() ? "volume attribute image is empty"
                               : "volume attribute image holds spaces or control characters")
        .WithHint("write a reference such as registry.example.com/team/model:v1");
  }
  if (value.starts_with("oci:") && !allow_oci_layouts) {
    return Error(Code::kInvalidArgument,
                 "volume attribute image: local OCI layouts are not allowed on this node")
        .WithHint("use an image in a registry, or start davit-csi with --allow-oci-layouts");
  }
  return value;
}

}  // namespace

bool IsKubernetesKey(std::string_view key) {
  const std::size_t slash = key.find('/');
  if (slash == std::string_view::npos) return false;
  const std::string_view domain = key.substr(0, slash);
  return domain == "k8s.io" || domain == "kubernetes.io" || domain.ends_with(".k8s.io") ||
         domain.ends_with(".kubernetes.io");
}

Result<VolumeSpec> ParseVolumeSpec(const std::map<std::string, std::string>& attributes,
                                   bool allow_oci_layouts) {
  std::size_t size = 0;
  for (const auto& [key, value] : attributes) {
    if (!IsKubernetesKey(key)) size += key.size() + value.size();
  }
  if (size > kMapLimit) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the volume attributes have {} bytes, more than {}", size, kMapLimit));
  }
  VolumeSpec spec;
  bool has_image = false;
  for (const auto& [key, value] : attributes) {
    if (IsKubernetesKey(key)) continue;
    if (key == "image") {
      DAVIT_TRY_ASSIGN(spec.image, ParseImage(value, allow_oci_layouts));
      has_image = true;
    } else if (key == "ready") {
      auto ready = daemon::api::ParseReady(value);
      if (!ready.ok()) {
        return Error(
                   Code::kInvalidArgument,
                   fmt::format("volume attribute ready: unknown value \"{}\"", value.substr(0, 32)))
            .WithHint("write mounted, prefetched or complete");
      }
      spec.ready = *ready;
    } else if (key == "platform") {
      DAVIT_TRY_ASSIGN(spec.platform, ParsePlatform(value));
    } else if (key == "plainHTTP") {
      DAVIT_TRY_ASSIGN(spec.plain_http, ParseBool(key, value));
    } else if (key == "fill") {
      DAVIT_TRY_ASSIGN(spec.fill, ParseBool(key, value));
    } else {
      return UnknownKey(key);
    }
  }
  if (!has_image) {
    return Error(Code::kInvalidArgument, "the volume attribute image is missing")
        .WithHint("add volumeAttributes: {image: registry.example.com/team/model:v1}");
  }
  return spec;
}

std::string MountIdOf(std::string_view volume_id, const VolumeSpec& spec) {
  // Lengths in front keep ("ab", "c") and ("a", "bc") apart.
  std::string text;
  for (const std::string_view part :
       {volume_id, std::string_view(spec.image), daemon::api::ReadyName(spec.ready),
        std::string_view(spec.platform)}) {
    text += fmt::format("{}:{}", part.size(), part);
  }
  text += spec.plain_http ? 'h' : 's';
  text += spec.fill ? 'f' : 'n';
  return "csi-" + Digest::Of(DigestAlgorithm::kSha256, AsBytes(text)).Hex().substr(0, 32);
}

}  // namespace davit::csi
