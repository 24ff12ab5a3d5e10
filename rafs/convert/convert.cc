#include "rafs/convert/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <utility>

#include "common/base/fd.h"
#include "rafs/convert/copy.h"
#include "rafs/convert/image_writer.h"
#include "rafs/convert/layer_stream.h"
#include "rafs/convert/source_image.h"

namespace davit::rafs {
namespace {

/// Counts what passes; decoders read ahead on threads of their own.
class CountedStream final : public codec::ByteStream {
 public:
  CountedStream(std::unique_ptr<codec::ByteStream> in,
                std::shared_ptr<std::atomic<std::uint64_t>> count)
      : in_(std::move(in)), count_(std::move(count)) {}
  Result<std::size_t> Read(MutableBytes out) override {
    DAVIT_TRY_ASSIGN(const std::size_t n, in_->Read(out));
    *count_ += n;
    return n;
  }

 private:
  std::unique_ptr<codec::ByteStream> in_;
  std::shared_ptr<std::atomic<std::uint64_t>> count_;
};

/// Converts one platform's manifest.
class ManifestConverter {
 public:
  ManifestConverter(const Context& ctx, registry::Repository& source, ImageWriter& writer,
                    registry::Repository& target, const SourceManifest& manifest,
                    const ConvertOptions& options, std::string work_dir, ConvertReport& report)
      : ctx_(ctx),
        source_(source),
        writer_(writer),
        target_(target),
        manifest_(manifest),
        options_(options),
        work_dir_(std::move(work_dir)),
        report_(report) {}

  Result<oci::Descriptor> Run() {
    if (options_.chunk_dict || options_.dedup_across_layers) dict_ = std::make_unique<ChunkDict>();
    if (options_.chunk_dict != nullptr) DAVIT_TRY(LoadDict());
    tree_ = EmptyTree();
    DAVIT_TRY(BuildLayers());
    DropWhiteouts(tree_);
    report_.inodes += tree_.CountInodes();
    DAVIT_TRY_ASSIGN(const Bootstrap bootstrap, WriteBootstrap(tree_, blobs_, options_.build));
    DAVIT_TRY(writer_.Wait());
    DAVIT_TRY(BringDictBlobs(bootstrap));
    return PushImage(bootstrap);
  }

 private:
  Status LoadDict() {
    registry::Repository& repository = *options_.chunk_dict;
    auto load = [&]() -> Status {
      DAVIT_TRY_ASSIGN(const ImageRef image,
                       FindImage(ctx_, repository, options_.chunk_dict_tag, manifest_.platform));
      const std::string directory = work_dir_ + "/dict";
      DAVIT_TRY(MakeDirectories(directory));
      DAVIT_TRY(FetchBootstrap(ctx_, repository, image, directory));
      DAVIT_TRY_ASSIGN(const std::unique_ptr<Metadata> metadata, OpenBootstrap(directory));
      return dict_->AddImage(*metadata, options_.build, blobs_);
    };
    Status status = load();
    if (!status.ok())
      return std::move(status).error().WithContext("chunk dictionary " + repository.Describe());
    return {};
  }

  /// Blobs of the dictionary that the image uses must be in its own repository.
  Status BringDictBlobs(const Bootstrap& bootstrap) {
    for (std::uint32_t position : bootstrap.used_blobs) {
      const BuiltBlob& blob = blobs_.blobs[position];
      if (!blob.path.empty()) continue;
      oci::Descriptor descriptor = BlobDescriptor(blob);
      DAVIT_TRY(CopyBlob(ctx_, *options_.chunk_dict, target_, descriptor, work_dir_,
                         [this](const ConvertEvent& event) { writer_.Notify(event); }));
      reference_blobs_.push_back(blob.id.value);
    }
    return {};
  }

  Status BuildLayers() {
    const auto& layers = manifest_.manifest.layers;
    if (layers.empty()) {
      return Error(Code::kInvalidArgument, "the image has no layers")
          .WithHint("there is nothing to convert");
    }
    for (const oci::Descriptor& layer : layers) DAVIT_TRY(CheckLayerType(layer));
    // The next layer downloads while this one is built.
    std::unique_ptr<codec::ByteStream> next = StreamLayer(ctx_, source_, layers[0]);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      std::unique_ptr<codec::ByteStream> stream = std::exchange(next, nullptr);
      if (i + 1 < layers.size()) next = StreamLayer(ctx_, source_, layers[i + 1]);
      DAVIT_TRY(BuildLayer(i, std::move(stream)));
    }
    return {};
  }

  Status BuildLayer(std::size_t i, std::unique_ptr<codec::ByteStream> stream) {
    const oci::Descriptor& layer = manifest_.manifest.layers[i];
    ConvertEvent event{.kind = ConvertEvent::Kind::kLayerStart,
                       .platform = manifest_.platform.ToString(),
                       .layer = i,
                       .layers = manifest_.manifest.layers.size(),
                       .total = layer.size,
                       .text = layer.digest};
    writer_.Notify(event);
    auto read = std::make_shared<std::atomic<std::uint64_t>>(0);
    auto progress = [&](std::uint64_t content) {
      event.kind = ConvertEvent::Kind::kLayerProgress;
      event.bytes = *read;
      event.content = content;
      writer_.Notify(event);
    };
    const std::string what =
        fmt::format("layer {} of {} ({})", i + 1, manifest_.manifest.layers.size(), layer.digest);
    auto tar =
        codec::MakeDetectingDecoder(std::make_unique<CountedStream>(std::move(stream), read));
    if (!tar.ok()) return std::move(tar).error().WithContext(what);
    const std::size_t before = blobs_.blobs.size();
    auto tree = BuildTar(ctx_, *std::move(tar), static_cast<std::uint32_t>(i), options_.build,
                         work_dir_, blobs_, dict_.get(), progress);
    if (!tree.ok()) {
      Error error = std::move(tree).error().WithContext(what);
      // What is wrong is the image, not the words of the caller.
      if (error.code() == Code::kInvalidArgument) return std::move(error).WithCode(Code::kDataLoss);
      return error;
    }
    for (std::size_t b = before; b < blobs_.blobs.size(); ++b) PushBlob(blobs_.blobs[b]);
    DAVIT_TRY(ApplyLayer(tree_, *std::move(tree)));
    report_.source_bytes += layer.size;
    event.kind = ConvertEvent::Kind::kLayerDone;
    writer_.Notify(event);
    return {};
  }

  void PushBlob(const BuiltBlob& blob) {
    if (blob.path.empty()) return;
    const oci::Descriptor descriptor = BlobDescriptor(blob);
    report_.target_bytes += blob.file_size;
    report_.content_bytes += blob.uncompressed_size;
    report_.chunks += blob.chunks.size();
    writer_.PushFile(blob.path, descriptor);
  }

  static oci::Descriptor BlobDescriptor(const BuiltBlob& blob) {
    oci::Descriptor out;
    out.media_type = kMediaTypeBlob;
    out.digest = "sha256:" + blob.id.value;
    out.size = blob.file_size;
    out.annotations.emplace(kAnnotationBlob, "true");
    return out;
  }

  /// A manifest does not mix the two families; what is no image's config keeps its own type.
  std::string_view ConfigType() const {
    if (options_.docker_media_types) return oci::kDockerConfig;
    const std::string& source = manifest_.manifest.config.media_type;
    return source == oci::kDockerConfig ? oci::kConfig : std::string_view(source);
  }

  Result<oci::Descriptor> PushImage(const Bootstrap& bootstrap) {
    oci::Manifest out;
    out.media_type = options_.docker_media_types ? oci::kDockerManifest : oci::kManifest;
    // Docker's manifests know annotations of layers only.
    if (!options_.docker_media_types) out.annotations = manifest_.manifest.annotations;
    std::vector<std::string> diff_ids;
    std::vector<std::pair<storage::BlobId, std::string>> metas;
    std::set<std::string> listed;
    for (std::uint32_t position : bootstrap.used_blobs) {
      const BuiltBlob& blob = blobs_.blobs[position];
      metas.emplace_back(blob.id, storage::EncodeLocalCi(AsBytes(blob.ci_array), blob.ci_header));
      if (!listed.insert(blob.id.value).second) continue;
      out.layers.push_back(BlobDescriptor(blob));
      diff_ids.push_back(out.layers.back().digest);
    }
    DAVIT_TRY_ASSIGN(const BootstrapLayer layer,
                     PackBootstrapLayer(AsBytes(bootstrap.bytes), metas));
    DAVIT_TRY_ASSIGN(
        oci::Descriptor descriptor,
        writer_.PushText(options_.docker_media_types ? oci::kDockerLayerGzip : oci::kLayerTarGzip,
                         layer.gzip));
    descriptor.annotations.emplace(kAnnotationBootstrap, "true");
    descriptor.annotations.emplace(kAnnotationFsVersion, "6");
    if (!reference_blobs_.empty()) {
      descriptor.annotations.emplace(kAnnotationReferenceBlobs, JsonList(reference_blobs_));
    }
    report_.target_bytes += descriptor.size;
    out.layers.push_back(descriptor);
    diff_ids.push_back(layer.diff_id);

    DAVIT_TRY_ASSIGN(const std::string config, RewriteConfig(manifest_.config, diff_ids));
    DAVIT_TRY_ASSIGN(out.config, writer_.PushText(ConfigType(), config));
    if (options_.with_referrer) {
      out.subject = manifest_.descriptor;
      out.subject->platform.reset();
      out.artifact_type = kArtifactType;
    }
    DAVIT_TRY_ASSIGN(oci::Descriptor pushed,
                     target_.PushManifest(ctx_, "", out.media_type, oci::ToJson(out)));
    pushed.platform = manifest_.platform;
    pushed.platform->os_features.emplace_back(kOsFeature);
    writer_.Notify({.kind = ConvertEvent::Kind::kManifest,
                    .platform = manifest_.platform.ToString(),
                    .text = pushed.digest});
    return pushed;
  }

  const Context& ctx_;
  registry::Repository& source_;
  ImageWriter& writer_;
  registry::Repository& target_;
  const SourceManifest& manifest_;
  const ConvertOptions& options_;
  const std::string work_dir_;
  ConvertReport& report_;
  std::unique_ptr<ChunkDict> dict_;
  BlobSet blobs_;
  Tree tree_;
  std::vector<std::string> reference_blobs_;
};

/// What Docker's formats cannot say is refused before anything is fetched or sent.
Status CheckDockerOptions(const ConvertOptions& options) {
  if (!options.docker_media_types || !options.with_referrer) return {};
  return Error(Code::kInvalidArgument,
               "a Docker manifest cannot refer to its source: only OCI manifests have a subject")
      .WithHint("leave out either --docker or --with-referrer");
}

Status CheckDockerSource(const SourceManifest& manifest, const ConvertOptions& options) {
  if (!options.docker_media_types) return {};
  const std::string& config = manifest.manifest.config.media_type;
  if (config != oci::kConfig && config != oci::kDockerConfig) {
    return Error(
               Code::kUnsupported,
               fmt::format("{} is no container image (its config is of type '{}'), and Docker has "
                           "no media type for it",
                           manifest.descriptor.digest, config))
        .WithHint("leave out --docker");
  }
  if (options.keep_source_in_index && manifest.descriptor.media_type != oci::kDockerManifest) {
    return Error(Code::kUnsupported,
                 fmt::format("{} is an OCI manifest, which Docker's manifest list does not hold",
                             manifest.descriptor.digest))
        .WithHint("leave out either --docker or --keep-source");
  }
  return {};
}

}  // namespace

Result<ConvertReport> ConvertImage(const Context& ctx, registry::Repository& source,
                                   const std::string& source_tag, registry::Repository& target,
                                   const std::string& target_tag, const ConvertOptions& options,
                                   const ConvertListener& listener) {
  ConvertOptions effective = options;
  // Layer blobs are named by the digest of the whole object, as registries need: that is the rule
  // for blobs that hold their own bootstrap.
  effective.build.blob_toc = true;
  effective.build.inline_bootstrap = true;
  DAVIT_TRY(effective.build.Validate());
  DAVIT_TRY(CheckDockerOptions(effective));
  DAVIT_TRY_ASSIGN(const std::vector<SourceManifest> manifests,
                   SelectManifests(ctx, source, source_tag, effective));
  for (const SourceManifest& manifest : manifests) {
    DAVIT_TRY(CheckDockerSource(manifest, effective));
  }
  DAVIT_TRY_ASSIGN(const TempDir work, TempDir::Create("davit-convert", options.work_dir));

  ConvertReport report;
  ImageWriter writer(ctx, target, options.parallel_transfers, listener);
  oci::Index index;
  index.media_type = options.docker_media_types ? oci::kDockerIndex : oci::kIndex;
  for (const SourceManifest& manifest : manifests) {
    ManifestConverter converter(ctx, source, writer, target, manifest, effective, work.path(),
                                report);
    auto pushed = converter.Run();
    if (!pushed.ok()) {
      return std::move(pushed).error().WithContext(
          fmt::format("convert {} ({})", manifest.descriptor.digest, manifest.platform.ToString()));
    }
    if (options.keep_source_in_index) index.manifests.push_back(manifest.descriptor);
    index.manifests.push_back(*std::move(pushed));
  }
  if (index.manifests.size() == 1) {
    const oci::Descriptor& only = index.manifests.front();
    DAVIT_TRY_ASSIGN(const registry::Document document, target.GetManifest(ctx, only.digest));
    DAVIT_TRY_ASSIGN(report.target,
                     target.PushManifest(ctx, target_tag, only.media_type, document.content));
  } else {
    if (options.keep_source_in_index) {
      for (const SourceManifest& manifest : manifests) {
        DAVIT_TRY(CopyManifest(ctx, source, target, manifest.descriptor, work.path()));
      }
    }
    DAVIT_TRY_ASSIGN(report.target,
                     target.PushManifest(ctx, target_tag, index.media_type, oci::ToJson(index)));
  }
  report.pushed_bytes = writer.pushed_bytes();
  return report;
}

}  // namespace davit::rafs
