#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <charconv>
#include <map>
#include <set>

#include "rafs/convert/blob_reader.h"
#include "rafs/convert/convert.h"

namespace davit::rafs {
namespace {

constexpr std::size_t kWriteBytes = 256U << 10;

struct WriteState {
  const storage::ByteSink& sink;
  Status status;
  std::string buffer;
  bool just_before_epoch = false;  // the entry whose header is being written

  void Flush() {
    if (status.ok() && !buffer.empty()) status = sink(AsBytes(buffer));
    buffer.clear();
  }
};

/// libarchive prints -1 s + 0.75 as "-1.75"; what is meant is -0.25, which it has no way to print.
/// SetTime has turned the fraction round; here the digit follows. `records` is a whole extended
/// header; anything else has no such record.
void CorrectTime(std::string& records) {
  constexpr std::string_view kTime = "mtime=-1.";
  for (std::size_t at = 0; at < records.size();) {
    std::size_t length = 0;
    const char* end = records.data() + records.size();
    const auto [rest, error] = std::from_chars(records.data() + at, end, length);
    if (error != std::errc() || length == 0 || length > records.size() - at) return;
    const auto text = static_cast<std::size_t>(rest - records.data()) + 1;
    if (text < records.size() && std::string_view(records).substr(text).starts_with(kTime)) {
      records[text + kTime.size() - 2] = '0';
      return;
    }
    at += length;
  }
}

// Called once for each header, extended header and piece of content: nothing is collected before.
la_ssize_t WriteCallback(archive* writer, void* data, const void* buffer, std::size_t length) {
  auto& state = *static_cast<WriteState*>(data);
  if (state.just_before_epoch) {
    std::string header(static_cast<const char*>(buffer), length);
    CorrectTime(header);
    state.buffer += header;
  } else {
    state.buffer.append(static_cast<const char*>(buffer), length);
  }
  if (state.buffer.size() >= kWriteBytes) state.Flush();
  if (state.status.ok()) return static_cast<la_ssize_t>(length);
  archive_set_error(writer, ARCHIVE_FATAL, "output failed");
  return -1;
}

/// libarchive prints seconds and fraction one after the other, so that -6 s + 0.75 would become
/// "-6.75"; what is meant is -5.25.
void SetTime(archive_entry* entry, const Attributes& attributes) {
  std::int64_t seconds = attributes.mtime;
  auto fraction = static_cast<long>(attributes.mtime_nsec);
  if (seconds < 0 && fraction > 0) {
    if (seconds < -1) ++seconds;  // "-1." becomes "-0." in CorrectTime
    fraction = 1'000'000'000 - fraction;
  }
  archive_entry_set_mtime(entry, seconds, fraction);
}

/// Writes entries of a tree as a PAX tar.
class TarWriter {
 public:
  TarWriter(const Metadata& metadata, const BlobOpener& open, const storage::ByteSink& sink)
      : metadata_(metadata),
        files_(metadata, open),
        state_{.sink = sink},
        archive_(archive_write_new()) {}
  ~TarWriter() { archive_write_free(archive_); }
  TarWriter(const TarWriter&) = delete;
  TarWriter& operator=(const TarWriter&) = delete;

  Status Begin() {
    archive_write_set_format_pax(archive_);
    // Names are bytes: nothing is to be converted.
    archive_write_set_options(archive_, "hdrcharset=BINARY");
    archive_write_set_bytes_per_block(archive_, 0);
    return Check(archive_write_open(archive_, &state_, nullptr, WriteCallback, nullptr));
  }

  Status Add(const Context& ctx, const std::string& path, const Attributes& attributes) {
    std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(),
                                                                   archive_entry_free);
    const std::string name = path == "/" ? "." : path.substr(1);
    archive_entry_copy_pathname(entry.get(), name.c_str());
    archive_entry_set_mode(entry.get(), attributes.mode);
    archive_entry_set_uid(entry.get(), attributes.uid);
    archive_entry_set_gid(entry.get(), attributes.gid);
    SetTime(entry.get(), attributes);
    if (S_ISCHR(attributes.mode) || S_ISBLK(attributes.mode))
      archive_entry_set_rdev(entry.get(), attributes.rdev);
    DAVIT_TRY(AddXattrs(entry.get(), attributes.id));
    if (S_ISSOCK(attributes.mode)) return {};  // tar has no such thing
    if (S_ISLNK(attributes.mode)) {
      DAVIT_TRY_ASSIGN(const std::string target, metadata_.ReadLink(attributes.id));
      archive_entry_copy_symlink(entry.get(), target.c_str());
    }
    bool content = S_ISREG(attributes.mode);
    if (content && attributes.nlink > 1) {
      const auto [first, is_new] = links_.emplace(attributes.id.value, name);
      if (!is_new) {
        archive_entry_copy_hardlink(entry.get(), first->second.c_str());
        content = false;
      }
    }
    archive_entry_set_size(entry.get(), content ? static_cast<la_int64_t>(attributes.size) : 0);
    state_.just_before_epoch = attributes.mtime == -1 && attributes.mtime_nsec > 0;
    DAVIT_TRY(Check(archive_write_header(archive_, entry.get())));
    state_.just_before_epoch = false;
    if (!content) return {};
    return files_.Read(ctx, attributes.id, attributes.size, [this](Bytes data) -> Status {
      const la_ssize_t n = archive_write_data(archive_, data.data(), data.size());
      if (n == static_cast<la_ssize_t>(data.size())) return {};
      return Check(ARCHIVE_FATAL);
    });
  }

  Status End() {
    DAVIT_TRY(Check(archive_write_close(archive_)));
    state_.Flush();
    return state_.status;
  }

 private:
  Status AddXattrs(archive_entry* entry, InodeId inode) {
    return metadata_.ListXattrs(inode, [entry](std::string_view name, Bytes value) {
      archive_entry_xattr_add_entry(entry, std::string(name).c_str(), value.data(), value.size());
    });
  }

  Status Check(int rc) {
    if (rc == ARCHIVE_OK || rc == ARCHIVE_WARN) return {};
    if (!state_.status.ok()) return state_.status.error();
    const char* text = archive_error_string(archive_);
    return Error(Code::kInternal, fmt::format("tar cannot be written: {}",
                                              text != nullptr ? text : "unknown error"));
  }

  const Metadata& metadata_;
  FileReader files_;
  WriteState state_;
  archive* archive_;
  std::map<std::uint64_t, std::string> links_;
};

/// Without headers and padding, so that the end comes a little late; good enough for a bar.
Result<std::uint64_t> ContentBytes(const Context& ctx, const Metadata& metadata) {
  std::uint64_t total = 0;
  std::set<std::uint64_t> links;
  DAVIT_TRY(Walk(
      metadata, metadata.root(), [&](const std::string&, const Attributes& attributes) -> Status {
        DAVIT_TRY(ctx.Check("unpack"));
        if (!S_ISREG(attributes.mode)) return {};
        const bool again = attributes.nlink > 1 && !links.insert(attributes.id.value).second;
        if (!again) total += attributes.size;
        return {};
      }));
  return total;
}

}  // namespace

Status UnpackImage(const Context& ctx, const Metadata& metadata, const BlobOpener& open_blob,
                   const storage::ByteSink& sink, const StepProgress& progress) {
  std::uint64_t total = 0, done = 0;
  if (progress) {
    DAVIT_TRY_ASSIGN(total, ContentBytes(ctx, metadata));
  }
  const storage::ByteSink counted = [&](Bytes data) {
    if (progress) progress("archive", done += data.size(), total);
    return sink(data);
  };
  TarWriter writer(metadata, open_blob, counted);
  DAVIT_TRY(writer.Begin());
  DAVIT_TRY(Walk(metadata, metadata.root(),
                 [&](const std::string& path, const Attributes& attributes) -> Status {
                   DAVIT_TRY(ctx.Check("unpack"));
                   Status status = writer.Add(ctx, path, attributes);
                   if (!status.ok()) return std::move(status).error().WithContext(path);
                   return {};
                 }));
  return writer.End();
}

}  // namespace davit::rafs
