#include "storage/registry/oci.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/digest/digest.h"
#include "common/json/json.h"

namespace davit::oci {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr std::size_t kMaxDocument = 4ULL << 20;
constexpr std::size_t kMaxEntries = 10000;
// Sizes are int64 in the specification; larger ones only serve to make sums overflow.
constexpr std::uint64_t kMaxSize = (1ULL << 63) - 1;

Error Invalid(std::string message) { return Error(Code::kInvalidArgument, std::move(message)); }

Status Optional(const Json& object, std::string_view key, std::string& out) {
  DAVIT_TRY_ASSIGN(std::optional<std::string> value, json::GetString(object, key));
  if (value) out = *std::move(value);
  return {};
}

Result<Annotations> ParseAnnotations(const Json& object) {
  Annotations out;
  DAVIT_TRY_ASSIGN(const Json* map, json::GetObject(object, "annotations"));
  if (map == nullptr) return out;
  for (const auto& [key, value] : map->items()) {
    if (!value.is_string()) return Invalid(fmt::format("the annotation '{}' is no string", key));
    out.emplace(key, value.get_ref<const std::string&>());
  }
  return out;
}

Result<Platform> ParsePlatform(const Json& object) {
  Platform out;
  DAVIT_TRY(Optional(object, "os", out.os));
  DAVIT_TRY(Optional(object, "architecture", out.architecture));
  DAVIT_TRY(Optional(object, "variant", out.variant));
  DAVIT_TRY(Optional(object, "os.version", out.os_version));
  DAVIT_TRY_ASSIGN(const Json* features, json::GetArray(object, "os.features"));
  if (features == nullptr) return out;
  for (const Json& feature : *features) {
    if (!feature.is_string()) return Invalid("'os.features' holds something that is no string");
    out.os_features.push_back(feature.get<std::string>());
  }
  return out;
}

Result<Descriptor> ParseDescriptor(const Json& object) {
  Descriptor out;
  DAVIT_TRY_ASSIGN(out.media_type, json::NeedString(object, "mediaType"));
  DAVIT_TRY_ASSIGN(out.digest, json::NeedString(object, "digest"));
  DAVIT_TRY(OciDigest::Parse(out.digest));
  DAVIT_TRY_ASSIGN(out.size, json::NeedUint(object, "size"));
  if (out.size > kMaxSize) return Invalid(fmt::format("the size {} is too large", out.size));
  DAVIT_TRY_ASSIGN(out.annotations, ParseAnnotations(object));
  DAVIT_TRY(Optional(object, "artifactType", out.artifact_type));
  DAVIT_TRY_ASSIGN(const Json* platform, json::GetObject(object, "platform"));
  if (platform != nullptr) {
    DAVIT_TRY_ASSIGN(out.platform, ParsePlatform(*platform));
  }
  return out;
}

Result<std::vector<Descriptor>> ParseDescriptors(const Json& root, std::string_view key) {
  std::vector<Descriptor> out;
  DAVIT_TRY_ASSIGN(const Json* list, json::GetArray(root, key));
  if (list == nullptr) return out;
  if (list->size() > kMaxEntries) {
    return Invalid(
        fmt::format("'{}' has {} entries, more than {}", key, list->size(), kMaxEntries));
  }
  out.reserve(list->size());
  for (const Json& item : *list) {
    Result<Descriptor> one = ParseDescriptor(item);
    if (!one) return std::move(one).error().WithContext(fmt::format("{}[{}]", key, out.size()));
    out.push_back(*std::move(one));
  }
  return out;
}

Result<std::optional<Descriptor>> ParseOne(const Json& root, std::string_view key) {
  DAVIT_TRY_ASSIGN(const Json* object, json::GetObject(root, key));
  if (object == nullptr) return std::optional<Descriptor>();
  Result<Descriptor> one = ParseDescriptor(*object);
  if (!one) return std::move(one).error().WithContext(key);
  return std::optional<Descriptor>(*std::move(one));
}

/// What manifests and indexes share. `foreign` are members of the other kind: a document that is
/// both would mean different things to different readers.
template <class Document>
Result<Json> ParseCommon(std::string_view text, std::string_view kind,
                         bool (*is_type)(std::string_view), std::string_view default_type,
                         std::initializer_list<std::string_view> foreign, Document& out) {
  DAVIT_TRY_ASSIGN(Json root, json::Parse(text, kind, kMaxDocument));
  if (!root.is_object()) return Invalid(fmt::format("{} is no JSON object", kind));
  DAVIT_TRY_ASSIGN(const std::optional<std::uint64_t> version,
                   json::GetUint(root, "schemaVersion"));
  if (version != 2) {
    return Invalid(fmt::format("'schemaVersion' is {}, only 2 is known",
                               version ? std::to_string(*version) : "missing"));
  }
  for (const std::string_view key : foreign) {
    if (root.contains(std::string(key)))
      return Invalid(fmt::format("it also has '{}', which does not belong there", key));
  }
  out.media_type = std::string(default_type);
  DAVIT_TRY(Optional(root, "mediaType", out.media_type));
  if (!is_type(out.media_type))
    return Invalid(fmt::format("its media type is '{}'", out.media_type));
  DAVIT_TRY(Optional(root, "artifactType", out.artifact_type));
  DAVIT_TRY_ASSIGN(out.subject, ParseOne(root, "subject"));
  DAVIT_TRY_ASSIGN(out.annotations, ParseAnnotations(root));
  return root;
}

Result<Manifest> ParseManifestBody(std::string_view text) {
  Manifest out;
  DAVIT_TRY_ASSIGN(const Json root, ParseCommon(text, "the manifest", IsManifestType, kManifest,
                                                {"manifests"}, out));
  DAVIT_TRY_ASSIGN(std::optional<Descriptor> config, ParseOne(root, "config"));
  if (!config) return Invalid("'config' is missing");
  out.config = *std::move(config);
  DAVIT_TRY_ASSIGN(out.layers, ParseDescriptors(root, "layers"));
  return out;
}

Result<Index> ParseIndexBody(std::string_view text) {
  Index out;
  DAVIT_TRY_ASSIGN(const Json root, ParseCommon(text, "the index", IsIndexType, kIndex,
                                                {"config", "layers", "fsLayers"}, out));
  if (!root.contains("manifests")) return Invalid("'manifests' is missing");
  DAVIT_TRY_ASSIGN(out.manifests, ParseDescriptors(root, "manifests"));
  return out;
}

OrderedJson AnnotationsJson(const Annotations& annotations) {
  OrderedJson out = OrderedJson::object();
  for (const auto& [key, value] : annotations) out[key] = value;
  return out;
}

OrderedJson PlatformJson(const Platform& platform) {
  OrderedJson out = {{"architecture", platform.architecture}, {"os", platform.os}};
  if (!platform.os_version.empty()) out["os.version"] = platform.os_version;
  if (!platform.os_features.empty()) out["os.features"] = platform.os_features;
  if (!platform.variant.empty()) out["variant"] = platform.variant;
  return out;
}

OrderedJson DescriptorJson(const Descriptor& descriptor) {
  OrderedJson out;
  out["mediaType"] = descriptor.media_type;
  out["digest"] = descriptor.digest;
  out["size"] = descriptor.size;
  if (!descriptor.annotations.empty()) out["annotations"] = AnnotationsJson(descriptor.annotations);
  if (descriptor.platform) out["platform"] = PlatformJson(*descriptor.platform);
  if (!descriptor.artifact_type.empty()) out["artifactType"] = descriptor.artifact_type;
  return out;
}

OrderedJson DescriptorsJson(const std::vector<Descriptor>& all) {
  OrderedJson out = OrderedJson::array();
  for (const Descriptor& one : all) out.push_back(DescriptorJson(one));
  return out;
}

template <class Document>
OrderedJson Start(const Document& document, std::string_view default_type) {
  OrderedJson out;
  out["schemaVersion"] = 2;
  out["mediaType"] = document.media_type.empty() ? std::string(default_type) : document.media_type;
  if (!document.artifact_type.empty()) out["artifactType"] = document.artifact_type;
  return out;
}

template <class Document>
std::string Finish(const Document& document, OrderedJson out) {
  if (document.subject) out["subject"] = DescriptorJson(*document.subject);
  if (!document.annotations.empty()) out["annotations"] = AnnotationsJson(document.annotations);
  return out.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace

bool IsManifestType(std::string_view media_type) {
  return media_type == kManifest || media_type == kDockerManifest;
}

bool IsIndexType(std::string_view media_type) {
  return media_type == kIndex || media_type == kDockerIndex;
}

Result<Manifest> ParseManifest(std::string_view json) {
  Result<Manifest> out = ParseManifestBody(json);
  if (!out) return std::move(out).error().WithContext("this is not an image manifest");
  return out;
}

Result<Index> ParseIndex(std::string_view json) {
  Result<Index> out = ParseIndexBody(json);
  if (!out) return std::move(out).error().WithContext("this is not an image index");
  return out;
}

std::string ToJson(const Manifest& manifest) {
  OrderedJson out = Start(manifest, kManifest);
  out["config"] = DescriptorJson(manifest.config);
  out["layers"] = DescriptorsJson(manifest.layers);
  return Finish(manifest, std::move(out));
}

std::string ToJson(const Index& index) {
  OrderedJson out = Start(index, kIndex);
  out["manifests"] = DescriptorsJson(index.manifests);
  return Finish(index, std::move(out));
}

Descriptor DescribeContent(std::string_view media_type, std::string_view content) {
  Descriptor out;
  out.media_type = std::string(media_type);
  out.digest = OciDigest::Format(Digest::Of(DigestAlgorithm::kSha256, AsBytes(content)));
  out.size = content.size();
  return out;
}

}  // namespace davit::oci
