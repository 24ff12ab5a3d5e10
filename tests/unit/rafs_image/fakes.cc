#include "tests/unit/rafs_image/fakes.h"

#include <algorithm>

namespace davit::rafs {
namespace {

Error ReadOnly() { return Error(Code::kUnsupported, "the fake repository is read-only"); }

}  // namespace

oci::Descriptor FakeRepository::Put(std::string_view media_type, const std::string& content) {
  oci::Descriptor descriptor = oci::DescribeContent(media_type, content);
  blobs[descriptor.digest] = content;
  return descriptor;
}

oci::Descriptor FakeRepository::PutManifest(const oci::Manifest& manifest, const std::string& tag) {
  const std::string json = oci::ToJson(manifest);
  const oci::Descriptor descriptor = oci::DescribeContent(oci::kManifest, json);
  documents[descriptor.digest] = {descriptor, json};
  if (!tag.empty()) documents[tag] = {descriptor, json};
  if (manifest.subject) {
    oci::Descriptor entry = descriptor;
    entry.artifact_type = manifest.artifact_type;
    referrers[manifest.subject->digest].push_back(entry);
  }
  return descriptor;
}

oci::Descriptor FakeRepository::PutIndex(const oci::Index& index, const std::string& tag) {
  const std::string json = oci::ToJson(index);
  const oci::Descriptor descriptor = oci::DescribeContent(oci::kIndex, json);
  documents[tag] = {descriptor, json};
  return descriptor;
}

Result<oci::Descriptor> FakeRepository::Resolve(const Context& ctx, const std::string& name) {
  DAVIT_TRY_ASSIGN(const auto document, GetManifest(ctx, name));
  return document.descriptor;
}

Result<registry::Document> FakeRepository::GetManifest(const Context&, const std::string& name) {
  ++reads;
  const auto it = documents.find(name);
  if (it == documents.end()) return Error(Code::kNotFound, "no manifest " + name);
  return it->second;
}

Result<std::string> FakeRepository::GetBlob(const Context&, const oci::Descriptor& blob,
                                            std::uint64_t) {
  const auto it = blobs.find(blob.digest);
  if (it == blobs.end()) return Error(Code::kNotFound, "no blob " + blob.digest);
  return it->second;
}

Status FakeRepository::ReadBlob(const Context& ctx, const oci::Descriptor& blob,
                                const storage::ByteSink& sink) {
  ++downloads;
  DAVIT_TRY_ASSIGN(const std::string content, GetBlob(ctx, blob, 0));
  constexpr std::size_t kPiece = 1000;
  for (std::size_t at = 0; at < content.size(); at += kPiece) {
    DAVIT_TRY(sink(AsBytes(content).subspan(at, std::min(kPiece, content.size() - at))));
  }
  return {};
}

std::shared_ptr<storage::BlobSource> FakeRepository::OpenBlob(const oci::Descriptor& blob) {
  return std::make_shared<FakeSource>(blobs[blob.digest]);
}

Result<bool> FakeRepository::HasBlob(const Context&, const oci::Descriptor& blob) {
  return blobs.contains(blob.digest);
}
Result<bool> FakeRepository::PushBlob(const Context&, const registry::BlobContent&) {
  return ReadOnly();
}
Result<bool> FakeRepository::MountBlob(const Context&, const oci::Descriptor&, const std::string&) {
  return ReadOnly();
}
Result<oci::Descriptor> FakeRepository::PushManifest(const Context&, const std::string&,
                                                     std::string_view, const std::string&) {
  return ReadOnly();
}
Result<std::vector<std::string>> FakeRepository::ListTags(const Context&) { return ReadOnly(); }

Result<std::vector<oci::Descriptor>> FakeRepository::Referrers(const Context&,
                                                               const std::string& digest,
                                                               const std::string& artifact_type) {
  if (referrers_error) return *referrers_error;
  std::vector<oci::Descriptor> out;
  for (const auto& descriptor : referrers[digest]) {
    if (artifact_type.empty() || descriptor.artifact_type == artifact_type) {
      out.push_back(descriptor);
    }
  }
  return out;
}

Status FakeRepository::DeleteManifest(const Context&, const std::string&) { return ReadOnly(); }

Status FakeSource::Read(const Context&, ByteRange range, storage::SourceRead& how,
                        const storage::ByteSink& sink) {
  requests.push_back(range);
  how.served_by = "fake";
  DAVIT_TRY_ASSIGN(const Bytes part,
                   SubBytes(AsBytes(content), range.offset, range.length, "fake blob"));
  const std::size_t half = part.size() / 2;
  if (half > 0) DAVIT_TRY(sink(part.first(half)));
  return sink(part.subspan(half));
}

oci::Manifest OrdinaryManifest(FakeRepository& repository) {
  oci::Manifest manifest;
  manifest.media_type = oci::kManifest;
  manifest.config = repository.Put(oci::kConfig, "{}");
  manifest.layers = {repository.Put(oci::kLayerTarGzip, "layer one"),
                     repository.Put(oci::kLayerTarGzip, "layer two")};
  return manifest;
}

oci::Manifest RafsManifest(FakeRepository& repository, const std::string& bootstrap_layer,
                           const std::string& fs_version) {
  oci::Manifest manifest;
  manifest.media_type = oci::kManifest;
  manifest.config = repository.Put(oci::kConfig, "{}");
  oci::Descriptor blob = repository.Put(kMediaTypeBlob, "a blob");
  blob.annotations[std::string(kAnnotationBlob)] = "true";
  oci::Descriptor boot = repository.Put(oci::kLayerTarGzip, bootstrap_layer);
  boot.annotations[std::string(kAnnotationBootstrap)] = "true";
  boot.annotations[std::string(kAnnotationFsVersion)] = fs_version;
  manifest.layers = {blob, boot};
  return manifest;
}

}  // namespace davit::rafs
