#include "storage/registry/manifest_document.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/json/json.h"
#include "storage/registry/oci.h"

namespace davit::registry {
namespace {

bool Known(std::string_view type) { return oci::IsManifestType(type) || oci::IsIndexType(type); }

}  // namespace

Result<std::string> ManifestType(std::string_view content, std::string_view content_type) {
  std::string_view header = content_type.substr(0, content_type.find(';'));
  while (header.ends_with(' ')) header.remove_suffix(1);
  DAVIT_TRY_ASSIGN(const nlohmann::json root, json::Parse(content, "the manifest", kMaxManifest));
  DAVIT_TRY_ASSIGN(const std::optional<std::string> own, json::GetString(root, "mediaType"));
  const std::string type = own && !own->empty() ? *own : std::string(Known(header) ? header : "");
  if (Known(header) && type != header) {
    return Error(Code::kDataLoss, fmt::format("it is sent as '{}' but says of itself '{}'", header,
                                              type.substr(0, 100)));
  }
  if (Known(type)) return type;
  if (type.empty() && root.contains("manifests") && !root.contains("layers"))
    return std::string(oci::kIndex);
  if (type.empty() && root.contains("layers") && root.contains("config"))
    return std::string(oci::kManifest);
  return Error(Code::kUnsupported,
               fmt::format("its media type '{}' is not supported",
                           (type.empty() ? std::string(header) : type).substr(0, 100)))
      .WithHint("davit reads OCI manifests and indexes, and Docker's of schema 2");
}

}  // namespace davit::registry
