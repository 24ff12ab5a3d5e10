#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "rafs/image/image.h"

namespace davit::rafs {
namespace {

/// Manifests of one index, or referrers of one manifest, that are looked at at most.
constexpr std::size_t kMaxProbes = 16;

std::optional<std::string> Annotation(const oci::Descriptor& descriptor, std::string_view key) {
  const auto it = descriptor.annotations.find(std::string(key));
  if (it == descriptor.annotations.end()) return std::nullopt;
  return it->second;
}

const oci::Descriptor* BootstrapLayerOf(const oci::Manifest& manifest) {
  const auto it = std::find_if(manifest.layers.rbegin(), manifest.layers.rend(),
                               [](const oci::Descriptor& layer) {
                                 return Annotation(layer, kAnnotationBootstrap) == "true";
                               });
  return it == manifest.layers.rend() ? nullptr : &*it;
}

/// Errors that mean "nothing there", as opposed to "could not ask".
bool IsAbsence(const Error& error) {
  return error.code() == Code::kNotFound || error.code() == Code::kUnsupported;
}

Result<ImageRef> MakeRef(registry::Document document, oci::Manifest manifest,
                         std::optional<oci::Platform> platform, std::string found_by) {
  const oci::Descriptor* layer = BootstrapLayerOf(manifest);
  if (layer == nullptr) {
    return Error(Code::kDataLoss, fmt::format("{} is said to be a RAFS image but has no bootstrap "
                                              "layer",
                                              document.descriptor.digest))
        .WithHint("convert the image again");
  }
  if (layer->media_type.ends_with("+encrypted")) {
    return Error(Code::kUnsupported, "the bootstrap layer is encrypted (ocicrypt)")
        .WithHint("use an image without encryption");
  }
  const auto version = Annotation(*layer, kAnnotationFsVersion);
  if (version && *version != "6") {
    return Error(Code::kUnsupported,
                 fmt::format("the image is RAFS v{}, only v6 is supported", version->substr(0, 8)))
        .WithHint("convert the image again with --fs-version 6");
  }
  ImageRef out;
  out.bootstrap = *layer;
  out.manifest = std::move(document);
  out.parsed = std::move(manifest);
  out.platform = std::move(platform);
  out.found_by = std::move(found_by);
  return out;
}

class Finder {
 public:
  Finder(const Context& ctx, registry::Repository& repository, const oci::Platform& platform)
      : ctx_(ctx), repository_(repository), platform_(platform) {}

  Result<ImageRef> Find(const std::string& tag_or_digest) {
    DAVIT_TRY_ASSIGN(registry::Document document, repository_.GetManifest(ctx_, tag_or_digest));
    if (oci::IsIndexType(document.descriptor.media_type)) return InIndex(document);
    DAVIT_TRY_ASSIGN(oci::Manifest manifest, oci::ParseManifest(document.content));
    if (IsRafsManifest(manifest)) {
      return MakeRef(std::move(document), std::move(manifest), std::nullopt, "manifest");
    }
    DAVIT_TRY_ASSIGN(auto found, InReferrers(document.descriptor, std::nullopt));
    if (found) return *std::move(found);
    return NotFound(fmt::format("{} is an ordinary image with {} layers", tag_or_digest,
                                manifest.layers.size()));
  }

 private:
  Error NotFound(std::string_view what) const {
    return Error(Code::kNotFound,
                 fmt::format("no RAFS image in {}: {}", repository_.Describe(), what))
        .WithHint("make one with \"davit convert\"");
  }

  /// The image when the manifest of this descriptor is a RAFS one.
  Result<std::optional<ImageRef>> Probe(const oci::Descriptor& descriptor,
                                        std::optional<oci::Platform> platform,
                                        std::string_view found_by,
                                        const std::string* subject = nullptr) {
    DAVIT_TRY_ASSIGN(registry::Document document, repository_.GetManifest(ctx_, descriptor.digest));
    auto manifest = oci::ParseManifest(document.content);
    // What is listed beside an image may be anything (signatures, attestations).
    if (!manifest || !IsRafsManifest(*manifest)) return std::optional<ImageRef>();
    if (subject != nullptr && (!manifest->subject || manifest->subject->digest != *subject)) {
      return std::optional<ImageRef>();
    }
    DAVIT_TRY_ASSIGN(ImageRef found, MakeRef(std::move(document), *std::move(manifest),
                                             std::move(platform), std::string(found_by)));
    return std::optional<ImageRef>(std::move(found));
  }

  Result<std::optional<ImageRef>> InReferrers(const oci::Descriptor& manifest,
                                              const std::optional<oci::Platform>& platform) {
    auto referrers = repository_.Referrers(ctx_, manifest.digest, std::string(kArtifactType));
    if (!referrers) {
      if (IsAbsence(referrers.error())) return std::optional<ImageRef>();
      return std::move(referrers).error();
    }
    if (referrers->size() > kMaxProbes) referrers->resize(kMaxProbes);
    for (const oci::Descriptor& referrer : *referrers) {
      auto found = Probe(referrer, platform, "referrer", &manifest.digest);
      if (found ? found->has_value() : !IsAbsence(found.error())) return found;
    }
    return std::optional<ImageRef>();
  }

  bool IsFor(const oci::Descriptor& d) const {
    return d.platform && d.platform->Matches(platform_);
  }

  /// The order in which an index's manifests are looked at: those that are marked as RAFS first.
  std::vector<const oci::Descriptor*> Candidates(const oci::Index& index) const {
    std::vector<std::pair<int, const oci::Descriptor*>> ranked;
    for (const oci::Descriptor& d : index.manifests) {
      if (d.platform && !IsFor(d)) continue;
      if (oci::IsIndexType(d.media_type)) continue;
      const bool marked =
          d.artifact_type == kArtifactType ||
          (d.platform && std::ranges::count(d.platform->os_features, kOsFeature) > 0);
      ranked.emplace_back((marked ? 0 : 2) + (d.platform ? 0 : 1), &d);
    }
    std::ranges::sort(ranked);  // equal ranks: by address, which is the order in the index
    std::vector<const oci::Descriptor*> out;
    for (const auto& item : ranked) out.push_back(item.second);
    if (out.size() > kMaxProbes) out.resize(kMaxProbes);
    return out;
  }

  Result<ImageRef> InIndex(const registry::Document& document) {
    DAVIT_TRY_ASSIGN(const oci::Index index, oci::ParseIndex(document.content));
    const auto candidates = Candidates(index);
    for (const oci::Descriptor* candidate : candidates) {
      auto found = Probe(*candidate, candidate->platform, "index");
      if (!found) return std::move(found).error();
      if (found->has_value()) return **std::move(found);
    }
    for (const oci::Descriptor* candidate : candidates) {
      if (!candidate->platform) continue;
      DAVIT_TRY_ASSIGN(auto found, InReferrers(*candidate, candidate->platform));
      if (found) return *std::move(found);
    }
    std::string there;
    for (const oci::Descriptor& d : index.manifests) {
      if (there.size() > 200) break;
      there += there.empty() ? "" : ", ";
      there += d.platform ? d.platform->ToString() : std::string("one without a platform");
    }
    return NotFound(fmt::format("none for {}; the index has {}", platform_.ToString(),
                                there.empty() ? "no manifests" : there));
  }

  const Context& ctx_;
  registry::Repository& repository_;
  const oci::Platform& platform_;
};

}  // namespace

bool IsRafsManifest(const oci::Manifest& manifest) {
  return manifest.artifact_type == kArtifactType || BootstrapLayerOf(manifest) != nullptr;
}

Result<ImageRef> FindImage(const Context& ctx, registry::Repository& repository,
                           const std::string& tag_or_digest, const oci::Platform& platform) {
  return Finder(ctx, repository, platform).Find(tag_or_digest);
}

}  // namespace davit::rafs
