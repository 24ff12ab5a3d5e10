#pragma once
// What kind of manifest a text is.

#include <string>
#include <string_view>

#include "common/base/result.h"

namespace davit::registry {

inline constexpr std::uint64_t kMaxManifest = 4ULL << 20;

/// The media type of a manifest: its own word, else the reply's Content-Type, else what its
/// members look like. kDataLoss when the two words contradict each other: the digest does not
/// cover the header. kUnsupported for types that davit does not know.
Result<std::string> ManifestType(std::string_view content, std::string_view content_type);

}  // namespace davit::registry
