#include "tests/support/fake_registry/store.h"

#include <filesystem>

#include "common/digest/digest.h"

namespace davit::testing {

std::string Sha256(const std::string& content) {
  return OciDigest::Format(Digest::Of(DigestAlgorithm::kSha256, AsBytes(content)));
}

std::string Store::PutBlob(const std::string& repository, std::string content) {
  std::string digest = Sha256(content);
  MutexLock lock(mutex_);
  repositories_[repository].blobs[digest] = std::move(content);
  return digest;
}

void Store::PutBlobFile(const std::string& digest, const std::string& path) {
  MutexLock lock(mutex_);
  files_[digest] = path;
}

std::optional<WireBody> Store::GetBlob(const std::string& repository,
                                       const std::string& digest) const {
  MutexLock lock(mutex_);
  if (const auto file = files_.find(digest); file != files_.end()) {
    WireBody body;
    body.file = file->second;
    body.size = std::filesystem::file_size(file->second);
    return body;
  }
  for (const auto& [name, content] : repositories_) {
    if (!repository.empty() && name != repository) continue;
    if (const auto blob = content.blobs.find(digest); blob != content.blobs.end()) {
      WireBody body;
      body.text = blob->second;
      return body;
    }
  }
  return std::nullopt;
}

bool Store::LinkBlob(const std::string& repository, const std::string& digest) {
  const auto body = GetBlob("", digest);
  if (!body) return false;
  if (body->file.empty()) PutBlob(repository, body->text);
  return true;
}

bool Store::EraseBlob(const std::string& repository, const std::string& digest) {
  MutexLock lock(mutex_);
  return repositories_[repository].blobs.erase(digest) > 0;
}

std::string Store::PutManifest(const std::string& repository, const std::string& reference,
                               const std::string& media_type, const std::string& content) {
  const std::string digest = Sha256(content);
  MutexLock lock(mutex_);
  Repository& target = repositories_[repository];
  target.manifests[digest] = {media_type, content, digest};
  if (!reference.empty() && !reference.starts_with("sha256:")) target.tags[reference] = digest;
  return digest;
}

std::optional<StoredManifest> Store::GetManifest(const std::string& repository,
                                                 const std::string& reference) const {
  MutexLock lock(mutex_);
  const auto it = repositories_.find(repository);
  if (it == repositories_.end()) return std::nullopt;
  std::string digest = reference;
  if (const auto tag = it->second.tags.find(reference); tag != it->second.tags.end())
    digest = tag->second;
  const auto manifest = it->second.manifests.find(digest);
  if (manifest == it->second.manifests.end()) return std::nullopt;
  return manifest->second;
}

bool Store::EraseManifest(const std::string& repository, const std::string& reference) {
  MutexLock lock(mutex_);
  Repository& target = repositories_[repository];
  if (target.tags.erase(reference) > 0) return true;
  if (target.manifests.erase(reference) == 0) return false;
  std::erase_if(target.tags, [&](const auto& tag) { return tag.second == reference; });
  return true;
}

std::vector<std::string> Store::Tags(const std::string& repository) const {
  MutexLock lock(mutex_);
  std::vector<std::string> out;
  if (const auto it = repositories_.find(repository); it != repositories_.end()) {
    for (const auto& [tag, digest] : it->second.tags) out.push_back(tag);
  }
  return out;
}

std::vector<StoredManifest> Store::Manifests(const std::string& repository) const {
  MutexLock lock(mutex_);
  std::vector<StoredManifest> out;
  if (const auto it = repositories_.find(repository); it != repositories_.end()) {
    for (const auto& [digest, manifest] : it->second.manifests) out.push_back(manifest);
  }
  return out;
}

}  // namespace davit::testing
