#include "rafs/image/bootstrap_layer.h"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include "rafs/image/image.h"
#include "storage/blobmeta/ci.h"

namespace davit::rafs {
namespace {

constexpr std::size_t kBufferSize = 256U << 10;
constexpr unsigned kMaxEntries = 4096;
/// 2^24 chunks with 24 bytes and a batch context of 40 bytes each, and the header.
constexpr std::uint64_t kMaxBlobMetaBytes = (64ULL << 24) + 2 * storage::kCiHeaderSize;
/// Of the whole archive, unpacked: stops small files that unpack without end.
constexpr std::uint64_t kMaxArchiveBytes = 8ULL << 30;

/// Feeds a ByteStream to libarchive and keeps the stream's error.
struct Source {
  std::unique_ptr<codec::ByteStream> stream;
  std::vector<std::byte> buffer = std::vector<std::byte>(kBufferSize);
  std::uint64_t total = 0;
  std::optional<Error> error;
};

la_ssize_t ReadSource(archive* a, void* data, const void** out) {
  auto& source = *static_cast<Source*>(data);
  auto n = source.stream->Read(source.buffer);
  if (n && (source.total += *n) > kMaxArchiveBytes) {
    n = Error(Code::kResourceExhausted, "the layer unpacks to more than 8 GiB");
  }
  if (!n) {
    source.error = n.error();
    archive_set_error(a, EIO, "%s", "source");
    return -1;
  }
  *out = source.buffer.data();
  return static_cast<la_ssize_t>(*n);
}

struct ArchiveDeleter {
  void operator()(archive* a) const { archive_free(a); }
};
using ArchivePtr = std::unique_ptr<archive, ArchiveDeleter>;
struct EntryDeleter {
  void operator()(archive_entry* e) const { archive_entry_free(e); }
};

Error ArchiveError(archive* a, const Source& source) {
  if (source.error) return *source.error;
  const char* text = archive_error_string(a);
  return Error(Code::kDataLoss,
               fmt::format("damaged tar: {}", text != nullptr ? text : "unknown error"));
}

/// What an entry is to us; nothing when it is to be skipped.
std::optional<LayerFile> Classify(archive_entry* entry) {
  const char* path = archive_entry_pathname(entry);
  if (path == nullptr || archive_entry_filetype(entry) != S_IFREG ||
      archive_entry_hardlink(entry) != nullptr) {
    return std::nullopt;
  }
  std::string_view name = path;
  name = name.substr(name.rfind('/') + 1);  // npos + 1 is 0: the whole name
  LayerFile file;
  file.size = static_cast<std::uint64_t>(std::max<la_int64_t>(archive_entry_size(entry), 0));
  if (name == kBootstrapName) return file;
  if (!name.ends_with(kBlobMetaSuffix)) return std::nullopt;
  auto id = storage::BlobId::Parse(name.substr(0, name.size() - kBlobMetaSuffix.size()));
  if (!id) return std::nullopt;
  file.blob = *std::move(id);
  return file;
}

class LayerReader {
 public:
  explicit LayerReader(const LayerFileOpener& open) : open_(open) {}

  Status Run(std::unique_ptr<codec::ByteStream> tar) {
    source_.stream = std::move(tar);
    archive_.reset(archive_read_new());
    archive_read_support_format_tar(archive_.get());
    if (archive_read_open2(archive_.get(), &source_, nullptr, ReadSource, nullptr, nullptr) !=
        ARCHIVE_OK) {
      return ArchiveError(archive_.get(), source_);
    }
    for (unsigned entries = 0;; ++entries) {
      archive_entry* entry = nullptr;
      const int status = archive_read_next_header(archive_.get(), &entry);
      if (status == ARCHIVE_EOF) break;
      if (status != ARCHIVE_OK && status != ARCHIVE_WARN) {
        return ArchiveError(archive_.get(), source_);
      }
      if (entries >= kMaxEntries) {
        return Error(Code::kResourceExhausted, "the layer has too many entries");
      }
      if (const auto file = Classify(entry)) DAVIT_TRY(Take(entry, *file));
    }
    if (have_bootstrap_) return {};
    return Error(Code::kNotFound, "the layer has no image.boot");
  }

 private:
  Status Take(archive_entry* entry, const LayerFile& file) {
    const std::string what = file.blob ? "blob.meta of " + file.blob->value : "image.boot";
    if (file.blob ? !metas_.insert(*file.blob).second : std::exchange(have_bootstrap_, true)) {
      return Error(Code::kDataLoss, what + " is in the layer twice");
    }
    if (file.size > (file.blob ? kMaxBlobMetaBytes : kMaxBootstrapBytes)) {
      return Error(Code::kResourceExhausted,
                   fmt::format("{} has {} bytes, which is too large", what, file.size));
    }
    // The holes of a sparse entry would be space that nobody has sent.
    if (archive_entry_sparse_count(entry) > 0) {
      return Error(Code::kUnsupported, what + " is a sparse entry");
    }
    DAVIT_TRY_ASSIGN(const storage::ByteSink sink, open_(file));
    std::uint64_t done = 0;
    while (true) {
      const la_ssize_t n = archive_read_data(archive_.get(), buffer_.data(), buffer_.size());
      if (n < 0) return ArchiveError(archive_.get(), source_).WithContext(what);
      if (n == 0) break;
      done += static_cast<std::uint64_t>(n);
      if (done > file.size) break;
      DAVIT_TRY(sink(Bytes(buffer_).first(static_cast<std::size_t>(n))));
    }
    if (done == file.size) return {};
    return Error(Code::kDataLoss, fmt::format("{}: {} bytes instead of {}", what, done, file.size));
  }

  const LayerFileOpener& open_;
  Source source_;
  ArchivePtr archive_;  // after source_, which it reads from until it is closed
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kBufferSize);
  bool have_bootstrap_ = false;
  std::set<storage::BlobId> metas_;
};

/// Writes one entry with nothing in it that depends on when and where it was made.
Status WriteEntry(archive* a, const std::string& path, mode_t mode, Bytes content) {
  const std::unique_ptr<archive_entry, EntryDeleter> entry(archive_entry_new());
  archive_entry_set_pathname(entry.get(), path.c_str());
  archive_entry_set_mode(entry.get(), mode);
  archive_entry_set_size(entry.get(), static_cast<la_int64_t>(content.size()));
  archive_entry_set_mtime(entry.get(), 0, 0);
  archive_entry_set_uid(entry.get(), 0);
  archive_entry_set_gid(entry.get(), 0);
  const bool ok = archive_write_header(a, entry.get()) == ARCHIVE_OK &&
                  (content.empty() || archive_write_data(a, content.data(), content.size()) ==
                                          static_cast<la_ssize_t>(content.size()));
  if (ok) return {};
  const char* text = archive_error_string(a);
  return Error(Code::kInternal,
               fmt::format("write tar entry {}: {}", path, text != nullptr ? text : "unknown"));
}

la_ssize_t AppendToString(archive*, void* data, const void* bytes, std::size_t size) {
  static_cast<std::string*>(data)->append(static_cast<const char*>(bytes), size);
  return static_cast<la_ssize_t>(size);
}

}  // namespace

Status ReadBootstrapLayer(std::unique_ptr<codec::ByteStream> layer, const LayerFileOpener& open) {
  DAVIT_TRY_ASSIGN(auto tar, codec::MakeDetectingDecoder(std::move(layer)));
  return LayerReader(open).Run(std::move(tar));
}

Result<BootstrapLayer> PackBootstrapLayer(
    Bytes bootstrap, const std::vector<std::pair<storage::BlobId, std::string>>& blob_metas) {
  std::string tar;
  const ArchivePtr a(archive_write_new());
  if (archive_write_set_format_ustar(a.get()) != ARCHIVE_OK ||
      archive_write_set_bytes_in_last_block(a.get(), 1) != ARCHIVE_OK ||
      archive_write_open2(a.get(), &tar, nullptr, AppendToString, nullptr, nullptr) != ARCHIVE_OK) {
    return Error(Code::kInternal, "cannot set up the tar writer");
  }
  constexpr mode_t kFileMode = S_IFREG | 0444;
  DAVIT_TRY(WriteEntry(a.get(), "image", S_IFDIR | 0755, {}));
  DAVIT_TRY(WriteEntry(a.get(), "image/image.boot", kFileMode, bootstrap));
  for (const auto& [id, meta] : blob_metas) {
    DAVIT_TRY(WriteEntry(a.get(), fmt::format("image/{}{}", id.value, kBlobMetaSuffix), kFileMode,
                         AsBytes(meta)));
  }
  if (archive_write_close(a.get()) != ARCHIVE_OK) {
    return Error(Code::kInternal, "cannot finish the tar");
  }
  BootstrapLayer out;
  out.diff_id = OciDigest::Format(Digest::Of(DigestAlgorithm::kSha256, AsBytes(tar)));
  DAVIT_TRY_ASSIGN(out.gzip, codec::GzipCompress(AsBytes(tar)));
  return out;
}

}  // namespace davit::rafs
