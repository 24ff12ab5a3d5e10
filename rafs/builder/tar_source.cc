// Tar streams as a source. libarchive parses; names, link targets and attribute values are bytes
// and stay as they are.

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <locale.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstring>
#include <utility>

#include "rafs/builder/pax_record.h"
#include "rafs/builder/source_build.h"
#include "rafs/builder/tar_tree.h"

namespace davit::rafs {
namespace {

// Small enough to stay in a core's own cache until it is copied on: with 256 KiB the whole build
// took a tenth longer.
constexpr std::size_t kReadBytes = 32U << 10;

// libarchive converts PAX names from UTF-8 to the thread's character set. In the C locale that
// fails for every name that is not ASCII, and then it keeps the raw bytes, which is what is wanted.
class CLocale {
 public:
  CLocale() : locale_(newlocale(LC_ALL_MASK, "C", nullptr)), old_(uselocale(locale_)) {}
  ~CLocale() {
    uselocale(old_);
    freelocale(locale_);
  }
  CLocale(const CLocale&) = delete;
  CLocale& operator=(const CLocale&) = delete;

 private:
  locale_t locale_, old_;
};

// A symlink entry that is put in front of every stream and skipped again. PAX writers leave the
// link field of the ordinary header empty when the target has no ASCII character; libarchive then
// loses the target of the PAX record unless an earlier entry had a link field.
std::string PrimingHeader() {
  std::string header(512, '\0');
  header.replace(0, 1, "x");
  header.replace(100, 8, std::string_view("0000777\0", 8));
  header.replace(124, 12, std::string_view("00000000000\0", 12));
  header.replace(148, 8, "        ");
  header[156] = '2';
  header.replace(157, 1, "x");
  header.replace(257, 8, std::string_view("ustar\00000", 8));
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  header.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  return header;
}

struct ArchiveDeleter {
  void operator()(archive* a) const { archive_read_free(a); }
};

// Feeds libarchive from a ByteStream and remembers the stream's own error, and the latest two
// buffers.
struct Feed {
  struct Piece {
    std::unique_ptr<std::byte[]> buffer = std::make_unique_for_overwrite<std::byte[]>(kReadBytes);
    std::uint64_t begin = 0, end = 0;  // where it is in the stream
  };
  std::unique_ptr<codec::ByteStream> stream;
  Piece last, before;
  std::string priming = PrimingHeader();
  bool primed = false;
  std::optional<Error> error;

  Result<std::size_t> Next() {
    std::swap(last, before);
    last.begin = last.end = before.end;
    // Full ones, however small the pieces of the stream are: two of them then hold what an entry
    // begins with.
    std::size_t filled = 0;
    while (filled < kReadBytes) {
      DAVIT_TRY_ASSIGN(const std::size_t n,
                       stream->Read({last.buffer.get() + filled, kReadBytes - filled}));
      if (n == 0) break;
      filled += n;
    }
    last.end += filled;
    return filled;
  }

  /// The latest bytes of the stream from `begin` on; empty when they are gone.
  std::string Since(std::uint64_t begin) const {
    std::string out;
    if (begin < before.begin || begin > last.end) return out;
    for (const Piece* piece : {&before, &last}) {
      const std::uint64_t from = std::max(begin, piece->begin);
      if (from >= piece->end) continue;
      out += AsText(Bytes(piece->buffer.get() + (from - piece->begin), piece->end - from));
    }
    return out;
  }

  static la_ssize_t Read(archive* a, void* self, const void** out) {
    auto& feed = *static_cast<Feed*>(self);
    if (!std::exchange(feed.primed, true)) {
      *out = feed.priming.data();
      return static_cast<la_ssize_t>(feed.priming.size());
    }
    auto n = feed.Next();
    if (!n.ok()) {
      feed.error = std::move(n).error();
      archive_set_error(a, EIO, "%s", feed.error->message().c_str());
      return -1;
    }
    *out = feed.last.buffer.get();
    return static_cast<la_ssize_t>(*n);
  }
};

class TarReader {
 public:
  TarReader(const Context& ctx, std::unique_ptr<codec::ByteStream> tar, std::uint32_t layer,
            SourceBuild& build, const BuildProgress& progress)
      : ctx_(ctx), build_(build), progress_(progress), tree_(layer) {
    feed_.stream = std::move(tar);
  }

  Result<Tree> Read() {
    const CLocale locale;
    archive_.reset(archive_read_new());
    if (archive_ == nullptr) return Error(Code::kResourceExhausted, "no memory to read a tar");
    archive_read_support_format_tar(archive_.get());
    if (archive_read_open(archive_.get(), &feed_, nullptr, &Feed::Read, nullptr) != ARCHIVE_OK) {
      return Failed("read the tar");
    }
    while (true) {
      archive_entry* entry = nullptr;
      const int rc = archive_read_next_header(archive_.get(), &entry);
      if (rc == ARCHIVE_EOF) break;
      if (rc != ARCHIVE_OK && !(rc == ARCHIVE_WARN && OnlyRawNames())) {
        return Failed(last_name_.empty()
                          ? std::string("read the first tar entry")
                          : fmt::format("read the tar entry after '{}'", last_name_));
      }
      DAVIT_TRY(ctx_.Check("build from tar"));
      if (std::exchange(skip_, false)) continue;
      DAVIT_TRY(Entry(entry));
    }
    // What follows the end mark is no content, but whoever digests the stream wants to see it all.
    while (true) {
      DAVIT_TRY_ASSIGN(const std::size_t n, feed_.Next());
      if (n == 0) break;
    }
    return tree_.Finish();
  }

 private:
  // libarchive warns about names that it could not convert and has kept as they are.
  bool OnlyRawNames() const {
    const char* text = archive_error_string(archive_.get());
    return text != nullptr && std::strstr(text, "can't be converted") != nullptr;
  }

  Error Failed(std::string_view what) const {
    if (feed_.error) return Error(*feed_.error).WithContext(what);
    const char* text = archive_error_string(archive_.get());
    return Error(Code::kDataLoss,
                 fmt::format("{}: {}", what, text != nullptr ? text : "unknown error"))
        .WithHint("the layer is damaged or no tar");
  }

  Status Entry(archive_entry* entry) {
    const char* raw = archive_entry_pathname(entry);
    last_name_ = raw != nullptr ? raw : "";
    if (last_name_.empty()) return Error(Code::kInvalidArgument, "a tar entry has an empty name");
    if (const char* target = archive_entry_hardlink(entry); target != nullptr) {
      // Some writers repeat the content with each link; libarchive skips what is not read.
      return tree_.InsertLink(last_name_, target);
    }
    auto node = std::make_shared<TreeInode>();
    DAVIT_TRY(Attributes(entry, *node));
    if (node->IsRegular()) {
      node->size = static_cast<std::uint64_t>(archive_entry_size(entry));
      if (!archive_entry_size_is_set(entry) || archive_entry_size(entry) < 0) {
        return Bad("has no valid size");
      }
      DAVIT_TRY(build_.pipeline().BeginFile(node, last_name_));
      DAVIT_TRY(Content(node->size));
    }
    return tree_.Insert(last_name_, std::move(node));
  }

  Error Bad(std::string_view problem) const {
    return Error(Code::kInvalidArgument, fmt::format("tar entry '{}' {}", last_name_, problem));
  }

  Status Attributes(archive_entry* entry, TreeInode& node) {
    const auto type = static_cast<std::uint32_t>(archive_entry_filetype(entry));
    switch (type) {
      case AE_IFLNK: {
        const char* target = archive_entry_symlink(entry);
        if (target == nullptr || *target == '\0') return Bad("is a symlink without a target");
        node.target = target;
        break;
      }
      case AE_IFCHR:
      case AE_IFBLK: {
        const auto major = archive_entry_rdevmajor(entry), minor = archive_entry_rdevminor(entry);
        if (major > 0xFFF || minor > 0xFFFFF) return Bad("has a device number that is too large");
        node.rdev = static_cast<std::uint32_t>(
            makedev(static_cast<unsigned>(major), static_cast<unsigned>(minor)));
        break;
      }
      case AE_IFREG:
      case AE_IFDIR:
      case AE_IFIFO:
      case AE_IFSOCK:
        break;
      default:
        return Bad("has an unknown type");
    }
    node.mode = type | (archive_entry_mode(entry) & 07777U);
    const la_int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);
    if (uid < 0 || uid > UINT32_MAX || gid < 0 || gid > UINT32_MAX) {
      return Bad("has an owner that does not fit 32 bits");
    }
    node.uid = static_cast<std::uint32_t>(uid);
    node.gid = static_cast<std::uint32_t>(gid);
    SetTime(archive_entry_mtime(entry), archive_entry_mtime_nsec(entry), node);
    if (node.mtime == 0 && node.mtime_nsec != 0 && IsJustBeforeEpoch()) {
      node.mtime = -1;
      node.mtime_nsec = 1'000'000'000 - node.mtime_nsec;
    }
    archive_entry_xattr_reset(entry);
    const char* name = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
      if (name == nullptr) continue;
      build_.SetXattr(node, name, std::string(static_cast<const char*>(value), size));
    }
    return {};
  }

  // "-0.5" comes as (0, 500000000), like "0.5": only the header itself tells them apart.
  bool IsJustBeforeEpoch() const {
    const auto at = archive_read_header_position(archive_.get());
    if (at < static_cast<la_int64_t>(feed_.priming.size())) return false;
    const std::string raw = feed_.Since(static_cast<std::uint64_t>(at) - feed_.priming.size());
    return PaxRecord(raw, "mtime").starts_with('-');
  }

  // "-1.5" comes as (-1, 500000000) from libarchive; POSIX writes it as (-2, 500000000).
  static void SetTime(time_t seconds, long nanoseconds, TreeInode& node) {
    node.mtime = seconds;
    node.mtime_nsec = static_cast<std::uint32_t>(nanoseconds);
    if (seconds < 0 && nanoseconds > 0) {
      node.mtime = seconds - 1;
      node.mtime_nsec = static_cast<std::uint32_t>(1'000'000'000 - nanoseconds);
    }
  }

  Status Content(std::uint64_t size) {
    std::uint64_t done = 0;
    while (true) {
      const void* data = nullptr;
      std::size_t length = 0;
      la_int64_t offset = 0;
      const int rc = archive_read_data_block(archive_.get(), &data, &length, &offset);
      if (rc == ARCHIVE_EOF) break;
      if (rc != ARCHIVE_OK) return Failed(fmt::format("read tar entry '{}'", last_name_));
      if (offset < 0 || static_cast<std::uint64_t>(offset) < done ||
          static_cast<std::uint64_t>(offset) > size ||
          length > size - static_cast<std::uint64_t>(offset)) {
        return Bad("has a sparse map that does not fit its size");
      }
      DAVIT_TRY(ctx_.Check("build from tar"));
      DAVIT_TRY(build_.pipeline().AppendZeros(static_cast<std::uint64_t>(offset) - done));
      DAVIT_TRY(build_.pipeline().Append(Bytes(static_cast<const std::byte*>(data), length)));
      Report(static_cast<std::uint64_t>(offset) + length - done);
      done = static_cast<std::uint64_t>(offset) + length;
    }
    DAVIT_TRY(build_.pipeline().AppendZeros(size - done));
    Report(size - done);
    return {};
  }

  void Report(std::uint64_t bytes) {
    bytes_ += bytes;
    if (progress_ && bytes != 0) progress_(bytes_);
  }

  const Context& ctx_;
  SourceBuild& build_;
  const BuildProgress& progress_;
  TarTree tree_;
  Feed feed_;
  std::unique_ptr<archive, ArchiveDeleter> archive_;  // after feed_: reads from it
  bool skip_ = true;                                  // the priming entry comes first
  std::string last_name_;
  std::uint64_t bytes_ = 0;
};

}  // namespace

Result<Tree> BuildTar(const Context& ctx, std::unique_ptr<codec::ByteStream> tar,
                      std::uint32_t layer, const BuildOptions& options, const std::string& work_dir,
                      BlobSet& blobs, ChunkDict* dict, const BuildProgress& progress) {
  DAVIT_TRY_ASSIGN(auto build, SourceBuild::Start(options, work_dir, blobs, dict));
  DAVIT_TRY_ASSIGN(Tree tree, TarReader(ctx, std::move(tar), layer, *build, progress).Read());
  DAVIT_TRY(build->Finish(tree));
  return tree;
}

}  // namespace davit::rafs
