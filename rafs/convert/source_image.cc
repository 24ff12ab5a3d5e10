#include "rafs/convert/source_image.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/json/json.h"

namespace davit::rafs {
namespace {

constexpr std::uint64_t kMaxConfigBytes = 8ULL << 20;

Result<SourceManifest> LoadManifest(const Context& ctx, registry::Repository& repository,
                                    const registry::Document& document,
                                    const std::optional<oci::Platform>& platform) {
  SourceManifest out;
  out.descriptor = document.descriptor;
  DAVIT_TRY_ASSIGN(out.manifest, oci::ParseManifest(document.content));
  if (IsRafsManifest(out.manifest)) {
    return Error(Code::kFailedPrecondition,
                 fmt::format("{}@{} is a RAFS image already", repository.Describe(),
                             document.descriptor.digest))
        .WithHint("convert from the ordinary image, or copy this one as it is");
  }
  DAVIT_TRY_ASSIGN(out.config, repository.GetBlob(ctx, out.manifest.config, kMaxConfigBytes));
  if (platform) {
    out.platform = *platform;
  } else if (out.manifest.config.media_type != oci::kEmpty) {
    DAVIT_TRY_ASSIGN(out.platform, PlatformOf(out.config));
  }
  out.descriptor.platform = out.platform;
  return out;
}

/// kNotFound when one of the platforms that were asked for is not among the chosen manifests.
Status CheckAllThere(const std::vector<oci::Platform>& wanted,
                     const std::vector<SourceManifest>& chosen, const std::string& image,
                     const std::string& hint) {
  for (const oci::Platform& platform : wanted) {
    const bool found = std::any_of(chosen.begin(), chosen.end(), [&](const SourceManifest& m) {
      return m.platform.Matches(platform);
    });
    if (found) continue;
    return Error(Code::kNotFound, fmt::format("{} has no image for {}", image, platform.ToString()))
        .WithHint(hint);
  }
  return {};
}

bool Wanted(const oci::Platform& platform, const std::vector<oci::Platform>& wanted) {
  return std::any_of(wanted.begin(), wanted.end(),
                     [&](const oci::Platform& w) { return platform.Matches(w); });
}

// Attestations and other companions of an image stand in its index with this platform.
bool IsRunnable(const oci::Descriptor& entry) {
  return entry.platform && entry.platform->os != "unknown" &&
         oci::IsManifestType(entry.media_type) &&
         std::find(entry.platform->os_features.begin(), entry.platform->os_features.end(),
                   kOsFeature) == entry.platform->os_features.end();
}

}  // namespace

Result<std::vector<SourceManifest>> SelectManifests(const Context& ctx,
                                                    registry::Repository& repository,
                                                    const std::string& tag,
                                                    const ConvertOptions& options) {
  DAVIT_TRY_ASSIGN(const registry::Document document, repository.GetManifest(ctx, tag));
  const std::string image = fmt::format("{}:{}", repository.Describe(), tag);
  std::vector<SourceManifest> out;
  if (!oci::IsIndexType(document.descriptor.media_type)) {
    DAVIT_TRY_ASSIGN(SourceManifest only, LoadManifest(ctx, repository, document, std::nullopt));
    const std::string is =
        only.platform.os.empty() && only.platform.architecture.empty()
            ? "it has no index, and its config names no platform"
            : "it has no index: it is one image, for " + only.platform.ToString();
    out.push_back(std::move(only));
    DAVIT_TRY(CheckAllThere(options.platforms, out, image,
                            is + "; leave the platform out to take it as it is"));
    return out;
  }
  DAVIT_TRY_ASSIGN(const oci::Index index, oci::ParseIndex(document.content));
  std::vector<oci::Platform> wanted = options.platforms;
  if (wanted.empty() && !options.all_platforms) wanted.push_back(oci::Platform::Host());
  std::string there;
  for (const oci::Descriptor& entry : index.manifests) {
    if (!IsRunnable(entry)) continue;
    there += (there.empty() ? "" : ", ") + entry.platform->ToString();
    if (!options.all_platforms && !Wanted(*entry.platform, wanted)) continue;
    DAVIT_TRY_ASSIGN(const registry::Document child, repository.GetManifest(ctx, entry.digest));
    DAVIT_TRY_ASSIGN(SourceManifest manifest, LoadManifest(ctx, repository, child, entry.platform));
    out.push_back(std::move(manifest));
  }
  DAVIT_TRY(CheckAllThere(wanted, out, image,
                          there.empty() ? "its index lists no image" : "there are: " + there));
  return out;
}

Result<oci::Platform> PlatformOf(const std::string& config) {
  DAVIT_TRY_ASSIGN(const nlohmann::json doc, json::Parse(config, "image config"));
  oci::Platform platform;
  DAVIT_TRY_ASSIGN(auto os, json::GetString(doc, "os"));
  DAVIT_TRY_ASSIGN(auto architecture, json::GetString(doc, "architecture"));
  DAVIT_TRY_ASSIGN(auto variant, json::GetString(doc, "variant"));
  platform.os = os.value_or("");
  platform.architecture = architecture.value_or("");
  platform.variant = variant.value_or("");
  return platform;
}

Tree EmptyTree() {
  Tree tree;
  tree.root = std::make_shared<TreeInode>();
  tree.root->mode = S_IFDIR | 0755;
  return tree;
}

Status CheckLayerType(const oci::Descriptor& layer) {
  const std::string& type = layer.media_type;
  if (type.ends_with("+encrypted")) {
    return Error(Code::kUnsupported, fmt::format("layer {} is encrypted", layer.digest))
        .WithHint("decrypt the image first");
  }
  const bool tar = type.find(".tar") != std::string::npos || type == oci::kLayerTar;
  if (!tar) {
    return Error(Code::kUnsupported,
                 fmt::format("layer {} is of type {}, not a tar archive", layer.digest, type))
        .WithHint("only images with tar, tar+gzip and tar+zstd layers can be converted");
  }
  return {};
}

}  // namespace davit::rafs
