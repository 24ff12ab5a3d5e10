#include "storage/registry/layout_repository.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/digest/digest.h"
#include "storage/registry/layout_store.h"
#include "storage/registry/manifest_document.h"
#include "storage/registry/remote_repository.h"

namespace davit::registry {
namespace {

constexpr std::string_view kRefName = "org.opencontainers.image.ref.name";
constexpr std::size_t kPiece = 256 << 10;

std::string RefName(const oci::Descriptor& entry) {
  const auto it = entry.annotations.find(std::string(kRefName));
  return it == entry.annotations.end() ? std::string() : it->second;
}

bool IsDigest(const std::string& name) { return name.find(':') != std::string::npos; }

/// Removed again unless it was renamed.
class TempFile {
 public:
  static Result<TempFile> Create(const std::string& directory) {
    std::string path = directory + "/.davit-XXXXXX";
    const int fd = mkostemp(path.data(), O_CLOEXEC);
    if (fd < 0) return Error::FromErrno(errno, "create a file in " + directory);
    return TempFile(UniqueFd(fd), std::move(path));
  }
  TempFile(TempFile&& other) noexcept
      : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, {})) {}
  TempFile& operator=(TempFile&&) = delete;
  ~TempFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  int fd() const { return fd_.get(); }
  Status CommitAs(const std::string& path, const std::string& directory) {
    if (fchmod(fd_.get(), 0644) != 0 || fsync(fd_.get()) != 0 ||
        rename(path_.c_str(), path.c_str()) != 0)
      return Error::FromErrno(errno, "write " + path);
    path_.clear();
    return SyncDirectory(directory);
  }

 private:
  TempFile(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  UniqueFd fd_;
  std::string path_;
};

class LayoutBlobSource final : public storage::BlobSource {
 public:
  LayoutBlobSource(std::shared_ptr<LayoutStore> store, const oci::Descriptor& blob)
      : store_(std::move(store)), blob_(blob) {}
  std::string Describe() const override { return "oci:" + store_->path() + "@" + blob_.digest; }
  std::string Host() const override { return "oci:" + store_->path(); }
  Result<std::uint64_t> Size(const Context&) override { return blob_.size; }

  Status Read(const Context& ctx, ByteRange range, storage::SourceRead& how,
              const storage::ByteSink& sink) override {
    const auto end = CheckedAdd(range.offset, range.length);
    if (!end || *end > blob_.size)
      return Error(Code::kInvalidArgument,
                   fmt::format("{}: {} bytes at {} are outside its {} bytes", Describe(),
                               range.length, range.offset, blob_.size));
    how.served_by = Host();
    DAVIT_TRY_ASSIGN(const UniqueFd fd, store_->OpenBlob(blob_.digest));
    DAVIT_TRY_ASSIGN(const std::uint64_t size, FileSize(fd.get()));
    if (size != blob_.size)
      return Error(Code::kDataLoss,
                   fmt::format("{}: the file has {} bytes, not {}", Describe(), size, blob_.size));
    std::vector<std::byte> buffer(std::min<std::uint64_t>(kPiece, range.length));
    for (std::uint64_t at = range.offset; at < *end;) {
      DAVIT_TRY(ctx.Check(Describe()));
      const MutableBytes piece =
          MutableBytes(buffer).first(std::min<std::uint64_t>(buffer.size(), *end - at));
      DAVIT_TRY_ASSIGN(const std::size_t got, PreadFull(fd.get(), piece, at));
      if (got != piece.size())
        return Error(Code::kDataLoss, Describe() + ": the file has shrunk while it was read");
      DAVIT_TRY(sink(piece));
      at += got;
    }
    return {};
  }

 private:
  const std::shared_ptr<LayoutStore> store_;
  const oci::Descriptor blob_;
};

class LayoutRepository final : public Repository {
 public:
  LayoutRepository(std::string path, Clock& clock)
      : store_(std::make_shared<LayoutStore>(std::move(path), clock)) {}

  std::string Describe() const override { return "oci:" + store_->path(); }

  Result<oci::Descriptor> Resolve(const Context& ctx, const std::string& name) override {
    DAVIT_TRY_ASSIGN(Document document, GetManifest(ctx, name));
    return std::move(document.descriptor);
  }

  Result<Document> GetManifest(const Context& ctx, const std::string& name) override {
    DAVIT_TRY(ctx.Check(Describe()));
    if (!name.empty()) DAVIT_TRY(CheckName(name));
    DAVIT_TRY_ASSIGN(const oci::Index index, store_->ReadIndex());
    std::string digest = name, type;
    if (!IsDigest(name)) {
      DAVIT_TRY_ASSIGN(const oci::Descriptor entry, Find(index, name));
      digest = entry.digest;
      type = entry.media_type;
    }
    Document out;
    DAVIT_TRY_ASSIGN(out.content, store_->ReadBlob(digest, kMaxManifest));
    Result<std::string> own = ManifestType(out.content, type);
    if (!own.ok()) return std::move(own).error().WithContext(Describe() + "@" + digest);
    out.descriptor = oci::DescribeContent(*own, out.content);
    return out;
  }

  Result<std::string> GetBlob(const Context& ctx, const oci::Descriptor& blob,
                              std::uint64_t limit) override {
    DAVIT_TRY(ctx.Check(Describe()));
    return store_->ReadBlob(blob.digest, limit);
  }

  Status ReadBlob(const Context& ctx, const oci::Descriptor& blob,
                  const storage::ByteSink& sink) override {
    Hasher hasher(DigestAlgorithm::kSha256);
    storage::SourceRead how;
    DAVIT_TRY(
        LayoutBlobSource(store_, blob).Read(ctx, {0, blob.size}, how, [&](Bytes data) -> Status {
          DAVIT_TRY(sink(data));
          hasher.Update(data);
          return {};
        }));
    if (OciDigest::Format(hasher.Finish()) == blob.digest) return {};
    return Error(Code::kDataLoss, fmt::format("{}: the blob {} is damaged: its content has another "
                                              "digest",
                                              Describe(), blob.digest))
        .WithHint("copy the image into the layout again");
  }

  std::shared_ptr<storage::BlobSource> OpenBlob(const oci::Descriptor& blob) override {
    return std::make_shared<LayoutBlobSource>(store_, blob);
  }

  Result<bool> HasBlob(const Context&, const oci::Descriptor& blob) override {
    Result<UniqueFd> fd = store_->OpenBlob(blob.digest);
    if (fd.ok()) {
      // A file of another length is what an interrupted copy by another tool leaves behind.
      DAVIT_TRY_ASSIGN(const std::uint64_t size, FileSize(fd->get()));
      return size == blob.size;
    }
    if (fd.error().code() == Code::kNotFound) return false;
    return std::move(fd).error();
  }

  Result<bool> PushBlob(const Context& ctx, const BlobContent& content) override {
    DAVIT_TRY_ASSIGN(const bool there, HasBlob(ctx, content.descriptor));
    if (there) return false;
    DAVIT_TRY(store_->Create());
    const std::string directory = store_->path() + "/blobs/sha256";
    DAVIT_TRY_ASSIGN(TempFile file, TempFile::Create(directory));
    DAVIT_TRY(CopyInto(ctx, content, file.fd()));
    DAVIT_TRY_ASSIGN(const std::string path, store_->BlobPath(content.descriptor.digest));
    DAVIT_TRY(file.CommitAs(path, directory));
    return true;
  }

  Result<bool> MountBlob(const Context&, const oci::Descriptor&, const std::string&) override {
    return false;  // layouts share nothing with each other
  }

  Result<oci::Descriptor> PushManifest(const Context& ctx, const std::string& name,
                                       std::string_view media_type,
                                       const std::string& content) override {
    if (content.size() > kMaxManifest)
      return Error(Code::kInvalidArgument, fmt::format("the manifest has {} bytes, more than {}",
                                                       content.size(), kMaxManifest));
    if (!name.empty()) DAVIT_TRY(CheckName(name));
    const oci::Descriptor descriptor = oci::DescribeContent(media_type, content);
    if (IsDigest(name) && name != descriptor.digest)
      return Error(Code::kInvalidArgument,
                   fmt::format("the manifest has the digest {}, not {}", descriptor.digest, name));
    oci::Descriptor entry = descriptor;
    std::optional<oci::Descriptor> subject;
    oci::Descriptor referrer = descriptor;
    DAVIT_TRY(DescribeReferrer(media_type, content, referrer, subject));
    DAVIT_TRY(store_->WriteBlob(descriptor.digest, AsBytes(content)));
    // Without a tag only referrers are entered: nothing else leads to them. Children of an index
    // are found through it.
    const bool tagged = !name.empty() && !IsDigest(name);
    if (!tagged && !subject) return descriptor;
    entry.artifact_type = subject ? referrer.artifact_type : std::string();
    if (tagged) entry.annotations[std::string(kRefName)] = name;
    DAVIT_TRY(store_->EditIndex(ctx, [&](oci::Index& index) -> Status {
      std::erase_if(index.manifests, [&](const oci::Descriptor& old) {
        return RefName(old) == RefName(entry) && (tagged || old.digest == entry.digest);
      });
      index.manifests.push_back(entry);
      return {};
    }));
    return descriptor;
  }

  Result<std::vector<std::string>> ListTags(const Context&) override {
    DAVIT_TRY_ASSIGN(const oci::Index index, store_->ReadIndex());
    return Tags(index);
  }

  Result<std::vector<oci::Descriptor>> Referrers(const Context& ctx, const std::string& digest,
                                                 const std::string& artifact_type) override {
    DAVIT_TRY(OciDigest::Parse(digest));
    DAVIT_TRY_ASSIGN(const oci::Index index, store_->ReadIndex());
    std::vector<oci::Descriptor> out;
    for (const oci::Descriptor& entry : index.manifests) {
      DAVIT_TRY(ctx.Check(Describe()));
      const Result<std::string> content = store_->ReadBlob(entry.digest, kMaxManifest);
      if (!content.ok()) continue;  // a damaged neighbour does not hide the others
      std::optional<oci::Descriptor> subject;
      oci::Descriptor referrer = oci::DescribeContent(entry.media_type, *content);
      if (!DescribeReferrer(entry.media_type, *content, referrer, subject).ok()) continue;
      if (!subject || subject->digest != digest) continue;
      if (!artifact_type.empty() && referrer.artifact_type != artifact_type) continue;
      const bool known = std::any_of(out.begin(), out.end(), [&](const oci::Descriptor& one) {
        return one.digest == referrer.digest;
      });
      if (!known) out.push_back(std::move(referrer));
    }
    return out;
  }

  Status DeleteManifest(const Context& ctx, const std::string& name) override {
    DAVIT_TRY(CheckName(name));
    DAVIT_TRY(store_->ReadIndex());  // kNotFound rather than a new layout
    const bool by_digest = IsDigest(name);
    if (by_digest) DAVIT_TRY(store_->OpenBlob(name));
    DAVIT_TRY(store_->EditIndex(ctx, [&](oci::Index& index) -> Status {
      const auto removed = std::erase_if(index.manifests, [&](const oci::Descriptor& entry) {
        return by_digest ? entry.digest == name : RefName(entry) == name;
      });
      if (removed == 0 && !by_digest) return NoSuchTag(index, name);
      return {};
    }));
    if (!by_digest) return {};
    DAVIT_TRY_ASSIGN(const std::string path, store_->BlobPath(name));
    if (unlink(path.c_str()) != 0 && errno != ENOENT)
      return Error::FromErrno(errno, "delete " + path);
    return {};
  }

 private:
  static std::vector<std::string> Tags(const oci::Index& index) {
    std::vector<std::string> out;
    for (const oci::Descriptor& entry : index.manifests) {
      if (std::string name = RefName(entry); !name.empty()) out.push_back(std::move(name));
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
  }

  Error NoSuchTag(const oci::Index& index, const std::string& name) const {
    std::string known;
    for (const std::string& tag : Tags(index)) {
      if (known.size() > 200) break;
      known += (known.empty() ? "" : ", ") + tag;
    }
    return Error(Code::kNotFound, name.empty()
                                      ? fmt::format("{}: no tag is given, and it does not hold "
                                                    "exactly one image",
                                                    Describe())
                                      : fmt::format("{}: there is no tag '{}'", Describe(), name))
        .WithHint(known.empty() ? std::string("it has no tags") : "it has " + known);
  }

  Result<oci::Descriptor> Find(const oci::Index& index, const std::string& name) const {
    if (name.empty()) {
      if (index.manifests.size() == 1) return index.manifests.front();
      return NoSuchTag(index, name);
    }
    for (const oci::Descriptor& entry : index.manifests) {
      if (RefName(entry) == name) return entry;
    }
    return NoSuchTag(index, name);
  }

  Status CopyInto(const Context& ctx, const BlobContent& content, int fd) const {
    const oci::Descriptor& blob = content.descriptor;
    Hasher hasher(DigestAlgorithm::kSha256);
    std::vector<std::byte> buffer(
        std::min<std::uint64_t>(kPiece, std::max<std::uint64_t>(blob.size, 1)));
    for (std::uint64_t at = 0; at < blob.size;) {
      DAVIT_TRY(ctx.Check(Describe()));
      const MutableBytes piece =
          MutableBytes(buffer).first(std::min<std::uint64_t>(buffer.size(), blob.size - at));
      DAVIT_TRY_ASSIGN(const std::size_t got, content.read_at(at, piece));
      if (got == 0 || got > piece.size())
        return Error(Code::kDataLoss, fmt::format("the content of {} ends at byte {} of {}",
                                                  blob.digest, at, blob.size));
      DAVIT_TRY(WriteFull(fd, piece.first(got)));
      hasher.Update(piece.first(got));
      at += got;
    }
    const std::string digest = OciDigest::Format(hasher.Finish());
    if (digest == blob.digest) return {};
    return Error(Code::kDataLoss, fmt::format("{}: the content announced as {} has the digest {}",
                                              Describe(), blob.digest, digest));
  }

  const std::shared_ptr<LayoutStore> store_;
};

}  // namespace

std::shared_ptr<Repository> MakeLayoutRepository(std::string path, Clock& clock) {
  return std::make_shared<LayoutRepository>(std::move(path), clock);
}

}  // namespace davit::registry
