#include "rafs/convert/copy.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "common/base/log.h"

namespace davit::rafs {
namespace {

/// "host/name" of a repository's description, split; empty parts when it is not of that form.
std::pair<std::string, std::string> HostAndName(const registry::Repository& repository) {
  const std::string text = repository.Describe();
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos || text.starts_with("oci:")) return {};
  return {text.substr(0, slash), text.substr(slash + 1)};
}

Result<bool> TryMount(const Context& ctx, registry::Repository& source,
                      registry::Repository& target, const oci::Descriptor& blob) {
  const auto [source_host, source_name] = HostAndName(source);
  const auto [target_host, target_name] = HostAndName(target);
  if (source_host.empty() || source_host != target_host || source_name == target_name) return false;
  return target.MountBlob(ctx, blob, source_name);
}

}  // namespace

Status CopyBlob(const Context& ctx, registry::Repository& source, registry::Repository& target,
                const oci::Descriptor& blob, const std::string& work_dir,
                const ConvertListener& listener) {
  auto notify = [&](ConvertEvent::Kind kind, std::uint64_t bytes) {
    if (listener) listener({.kind = kind, .bytes = bytes, .total = blob.size, .text = blob.digest});
  };
  using Kind = ConvertEvent::Kind;
  DAVIT_TRY_ASSIGN(const bool there, target.HasBlob(ctx, blob));
  const Result<bool> mounted = there ? Result<bool>(true) : TryMount(ctx, source, target, blob);
  if (mounted.ok() && *mounted) {
    notify(Kind::kPushDone, 0);
    return {};
  }
  if (!mounted.ok()) {
    log::Debug("cross-repository mount failed, copying",
               {{"blob", blob.digest}, {"error", mounted.error()}});
  }
  const std::string path = work_dir + "/copy-" + blob.digest.substr(blob.digest.find(':') + 1);
  DAVIT_TRY_ASSIGN(const UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_TRUNC));
  ::unlink(path.c_str());
  std::uint64_t fetched = 0;
  DAVIT_TRY(source.ReadBlob(ctx, blob, [&](Bytes data) {
    notify(Kind::kFetchProgress, fetched += data.size());
    return WriteFull(fd.get(), data);
  }));
  registry::BlobContent content{
      blob, [&](std::uint64_t offset, MutableBytes out) -> Result<std::size_t> {
        DAVIT_TRY_ASSIGN(const std::size_t n, PreadFull(fd.get(), out, offset));
        notify(Kind::kPushProgress, offset + n);
        return n;
      }};
  DAVIT_TRY_ASSIGN(const bool sent, target.PushBlob(ctx, content));
  notify(Kind::kPushDone, sent ? blob.size : 0);
  return {};
}

Status CopyManifest(const Context& ctx, registry::Repository& source, registry::Repository& target,
                    const oci::Descriptor& manifest, const std::string& work_dir,
                    const ConvertListener& listener) {
  DAVIT_TRY_ASSIGN(const registry::Document document, source.GetManifest(ctx, manifest.digest));
  DAVIT_TRY_ASSIGN(const oci::Manifest parsed, oci::ParseManifest(document.content));
  DAVIT_TRY(CopyBlob(ctx, source, target, parsed.config, work_dir, listener));
  for (const oci::Descriptor& layer : parsed.layers) {
    DAVIT_TRY(CopyBlob(ctx, source, target, layer, work_dir, listener));
  }
  DAVIT_TRY(target.PushManifest(ctx, "", document.descriptor.media_type, document.content));
  return {};
}

Result<oci::Descriptor> CopyImage(const Context& ctx, registry::Repository& source,
                                  const std::string& source_tag, registry::Repository& target,
                                  const std::string& target_tag, const std::string& work_dir,
                                  const ConvertListener& listener) {
  DAVIT_TRY_ASSIGN(const registry::Document document, source.GetManifest(ctx, source_tag));
  if (oci::IsIndexType(document.descriptor.media_type)) {
    DAVIT_TRY_ASSIGN(const oci::Index index, oci::ParseIndex(document.content));
    for (const oci::Descriptor& child : index.manifests) {
      DAVIT_TRY(CopyManifest(ctx, source, target, child, work_dir, listener));
    }
  } else {
    DAVIT_TRY(CopyManifest(ctx, source, target, document.descriptor, work_dir, listener));
  }
  return target.PushManifest(ctx, target_tag, document.descriptor.media_type, document.content);
}

}  // namespace davit::rafs
