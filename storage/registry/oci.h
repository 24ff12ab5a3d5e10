#pragma once
// OCI image-spec 1.1 documents (and Docker schema 2, which has the same shape), as values.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace davit::oci {

inline constexpr std::string_view kManifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kIndex = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view kConfig = "application/vnd.oci.image.config.v1+json";
inline constexpr std::string_view kLayerTar = "application/vnd.oci.image.layer.v1.tar";
inline constexpr std::string_view kLayerTarGzip = "application/vnd.oci.image.layer.v1.tar+gzip";
inline constexpr std::string_view kLayerTarZstd = "application/vnd.oci.image.layer.v1.tar+zstd";
inline constexpr std::string_view kEmpty = "application/vnd.oci.empty.v1+json";
inline constexpr std::string_view kDockerManifest =
    "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr std::string_view kDockerIndex =
    "application/vnd.docker.distribution.manifest.list.v2+json";
inline constexpr std::string_view kDockerConfig = "application/vnd.docker.container.image.v1+json";
inline constexpr std::string_view kDockerLayerGzip =
    "application/vnd.docker.image.rootfs.diff.tar.gzip";

bool IsManifestType(std::string_view media_type);
bool IsIndexType(std::string_view media_type);

using Annotations = std::map<std::string, std::string>;

struct Platform {
  std::string os, architecture, variant, os_version;
  std::vector<std::string> os_features;
  /// "linux/arm64/v8"; kInvalidArgument otherwise.
  static Result<Platform> Parse(std::string_view text);
  std::string ToString() const;
  /// The machine this runs on.
  static Platform Host();
  /// os, architecture and (if `wanted` has one) variant agree.
  bool Matches(const Platform& wanted) const;
  bool operator==(const Platform&) const = default;
};

struct Descriptor {
  std::string media_type;
  std::string digest;  // "sha256:…", checked when parsed
  std::uint64_t size = 0;
  Annotations annotations;
  std::optional<Platform> platform;
  std::string artifact_type;
};

struct Manifest {
  std::string media_type;
  std::string artifact_type;
  Descriptor config;
  std::vector<Descriptor> layers;
  std::optional<Descriptor> subject;
  Annotations annotations;
};

struct Index {
  std::string media_type;
  std::string artifact_type;
  std::vector<Descriptor> manifests;
  std::optional<Descriptor> subject;
  Annotations annotations;
};

/// At most 4 MiB of text, 10 000 entries; sizes and digests are checked. kInvalidArgument.
Result<Manifest> ParseManifest(std::string_view json);
Result<Index> ParseIndex(std::string_view json);
/// Compact JSON with a fixed order of members: the same value gives the same bytes.
std::string ToJson(const Manifest& manifest);
std::string ToJson(const Index& index);

/// The descriptor's own bytes: size and digest from the content.
Descriptor DescribeContent(std::string_view media_type, std::string_view content);

}  // namespace davit::oci
