#pragma once
// Names of images: registry references and OCI layout directories.

#include <string>
#include <string_view>

#include "common/base/result.h"

namespace davit::registry {

/// "host[:port]/repository[:tag][@digest]" as Docker reads it (no host: docker.io, no namespace
/// there: library/, neither tag nor digest: latest), or "oci:/path/to/layout[:tag][@digest]".
struct Reference {
  enum class Kind { kRegistry, kOciLayout };
  Kind kind = Kind::kRegistry;
  std::string host;        // with port; empty for layouts
  std::string repository;  // or the layout's path
  std::string tag;
  std::string digest;  // "sha256:…" or empty

  /// kInvalidArgument with the offending part and an example.
  static Result<Reference> Parse(std::string_view text);
  std::string ToString() const;
  /// What to ask the registry for: the digest if there is one, else the tag.
  const std::string& TagOrDigest() const { return digest.empty() ? tag : digest; }
  bool operator==(const Reference&) const = default;
};

}  // namespace davit::registry
