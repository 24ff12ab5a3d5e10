// A directory as a source. The tree is scanned first (names and attributes), then the files are
// read: prefetch files first, the others breadth first, as nydus orders them.

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <unordered_set>

#include "rafs/builder/source_build.h"

namespace davit::rafs {
namespace {

struct FileToRead {
  std::string path;  // below the root
  std::shared_ptr<TreeInode> inode;
};

// Opens `path` below `root` without following a symlink anywhere, so that a tree that changes
// meanwhile cannot lead outside.
Result<UniqueFd> OpenBelow(int root, const std::string& path, int flags) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  const char* name = path.empty() ? "." : path.c_str();
  UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, root, name, &how, sizeof how)));
  if (!fd && errno == ENOSYS) {  // some sandboxes
    fd.reset(::openat(root, name, flags | O_CLOEXEC | O_NOFOLLOW));
  }
  if (!fd) return Error::FromErrno(errno, fmt::format("open '{}'", path));
  return fd;
}

class DirectoryReader {
 public:
  DirectoryReader(const Context& ctx, const std::string& root, const BuildOptions& options,
                  SourceBuild& build, const BuildProgress& progress)
      : ctx_(ctx), root_path_(root), options_(options), build_(build), progress_(progress) {}

  Result<Tree> Read() {
    DAVIT_TRY_ASSIGN(root_, OpenFile(root_path_, O_RDONLY | O_DIRECTORY));
    DAVIT_TRY_ASSIGN(Tree tree, Scan());
    std::vector<FileToRead> files = InReadingOrder();
    for (FileToRead& file : files) {
      DAVIT_TRY(ctx_.Check("build from directory"));
      if (auto status = ReadFile(file); !status.ok()) {
        return std::move(status).error().WithContext(fmt::format("read '{}'", Full(file.path)));
      }
    }
    return tree;
  }

 private:
  std::string Full(const std::string& path) const {
    return path.empty() ? root_path_ : root_path_ + "/" + path;
  }

  Result<Tree> Scan() {
    Tree tree{std::make_shared<TreeInode>()};
    struct stat st;
    if (::fstat(root_.get(), &st) != 0) return Error::FromErrno(errno, "stat " + root_path_);
    SetAttributes(st, *tree.root);
    struct Directory {
      std::string path;
      TreeInode* inode;
    };
    std::vector<Directory> level{{"", tree.root.get()}};
    while (!level.empty()) {
      std::vector<Directory> next;
      for (const Directory& dir : level) {
        DAVIT_TRY(ctx_.Check("scan directory"));
        DAVIT_TRY(ScanDirectory(dir.path, *dir.inode));
        for (const auto& [name, child] : dir.inode->children) {
          if (child->IsDirectory()) {
            next.push_back({dir.path.empty() ? name : dir.path + "/" + name, child.get()});
          }
        }
      }
      level = std::move(next);
    }
    return tree;
  }

  Status ScanDirectory(const std::string& path, TreeInode& inode) {
    if (path.size() > kMaxTreePath - 256) {
      return Error(Code::kInvalidArgument,
                   fmt::format("the path '{}...' is too long", path.substr(0, 100)));
    }
    DAVIT_TRY_ASSIGN(UniqueFd fd, OpenBelow(root_.get(), path, O_RDONLY | O_DIRECTORY));
    const std::string handle = fmt::format("/proc/self/fd/{}", fd.get());
    DAVIT_TRY(ReadXattrs(handle + "/.", path, inode));
    DAVIT_TRY_ASSIGN(const std::vector<std::string> names, ListDirectory(handle));
    for (const std::string& name : names) {
      const std::string child_path = path.empty() ? name : path + "/" + name;
      DAVIT_TRY(CheckEntryName(name, Full(child_path)));
      DAVIT_TRY_ASSIGN(inode.children[name], ScanEntry(fd.get(), handle, name, child_path));
    }
    return {};
  }

  Result<std::shared_ptr<TreeInode>> ScanEntry(int dir, const std::string& handle,
                                               const std::string& name, const std::string& path) {
    struct stat st;
    if (::fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      return Error::FromErrno(errno, fmt::format("stat '{}'", Full(path)));
    }
    if (S_ISREG(st.st_mode) && st.st_nlink > 1) {
      auto& linked = links_[{st.st_dev, st.st_ino}];
      if (linked != nullptr) return linked;
      linked = std::make_shared<TreeInode>();
      DAVIT_TRY(FillEntry(st, dir, handle, name, path, *linked));
      files_.push_back({path, linked});
      return linked;
    }
    auto inode = std::make_shared<TreeInode>();
    DAVIT_TRY(FillEntry(st, dir, handle, name, path, *inode));
    if (inode->IsRegular()) files_.push_back({path, inode});
    return inode;
  }

  Status FillEntry(const struct stat& st, int dir, const std::string& handle,
                   const std::string& name, const std::string& path, TreeInode& inode) {
    SetAttributes(st, inode);
    if (inode.IsRegular()) inode.size = static_cast<std::uint64_t>(st.st_size);
    if (S_ISLNK(st.st_mode)) {
      std::string target(kMaxTreePath + 1, '\0');
      const ssize_t n = ::readlinkat(dir, name.c_str(), target.data(), target.size());
      if (n < 0) return Error::FromErrno(errno, fmt::format("read link '{}'", Full(path)));
      target.resize(static_cast<std::size_t>(n));
      inode.target = std::move(target);
    }
    // Directories get theirs when they are opened.
    if (inode.IsDirectory()) return {};
    return ReadXattrs(handle + "/" + name, path, inode);
  }

  static void SetAttributes(const struct stat& st, TreeInode& inode) {
    inode.mode = st.st_mode;
    inode.uid = st.st_uid;
    inode.gid = st.st_gid;
    inode.mtime = st.st_mtim.tv_sec;
    inode.mtime_nsec = static_cast<std::uint32_t>(st.st_mtim.tv_nsec);
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
      inode.rdev = static_cast<std::uint32_t>(st.st_rdev);
    }
  }

  Status ReadXattrs(const std::string& file, const std::string& path, TreeInode& inode) {
    const ssize_t size = ::llistxattr(file.c_str(), names_.data(), names_.size());
    if (size < 0) {
      if (errno == ENOTSUP || errno == EPERM) return {};
      return Error::FromErrno(errno, fmt::format("list attributes of '{}'", Full(path)));
    }
    for (ssize_t at = 0; at < size;) {
      const std::string name(names_.data() + at);
      at += static_cast<ssize_t>(name.size()) + 1;
      const ssize_t n = ::lgetxattr(file.c_str(), name.c_str(), value_.data(), value_.size());
      if (n < 0) {
        if (errno == ENODATA) continue;  // vanished, or readable by nobody
        return Error::FromErrno(errno,
                                fmt::format("read attribute '{}' of '{}'", name, Full(path)));
      }
      build_.SetXattr(inode, name, std::string(value_.data(), static_cast<std::size_t>(n)));
    }
    return {};
  }

  // Files below the prefetch paths in the order of these, then the rest as scanned.
  std::vector<FileToRead> InReadingOrder() {
    if (options_.prefetch.empty()) return std::move(files_);
    std::vector<FileToRead> ordered;
    std::vector<bool> taken(files_.size(), false);
    const auto take = [&](std::size_t i) {
      taken[i] = true;
      ordered.push_back(std::move(files_[i]));
    };
    for (const std::string& pattern : options_.prefetch) {
      std::string_view wanted = pattern;
      while (wanted.starts_with('/')) wanted.remove_prefix(1);
      while (wanted.ends_with('/')) wanted.remove_suffix(1);
      for (std::size_t i = 0; i < files_.size(); ++i) {
        if (taken[i]) continue;
        const std::string& path = files_[i].path;
        if (wanted.empty() || path == wanted ||
            (path.starts_with(wanted) && path[wanted.size()] == '/')) {
          take(i);
        }
      }
    }
    for (std::size_t i = 0; i < files_.size(); ++i) {
      if (!taken[i]) take(i);
    }
    return ordered;
  }

  Status ReadFile(FileToRead& file) {
    ChunkPipeline& pipeline = build_.pipeline();
    DAVIT_TRY(pipeline.BeginFile(file.inode, file.path));
    if (file.inode->size == 0) return {};
    DAVIT_TRY_ASSIGN(UniqueFd fd, OpenBelow(root_.get(), file.path, O_RDONLY | O_NONBLOCK));
    struct stat st;
    if (::fstat(fd.get(), &st) != 0) return Error::FromErrno(errno, "stat");
    const auto changed = [] {
      return Error(Code::kFailedPrecondition, "the file changed while it was read")
          .WithHint("build from a directory that nobody writes to");
    };
    if (!S_ISREG(st.st_mode) || static_cast<std::uint64_t>(st.st_size) != file.inode->size) {
      return changed();
    }
    if (static_cast<std::uint64_t>(st.st_blocks) * 512 < file.inode->size) {
      DAVIT_TRY(ReadSparse(fd.get(), file.inode->size));
    } else {
      DAVIT_TRY(ReadRange(fd.get(), 0, file.inode->size));
    }
    if (pipeline.missing() != 0) return changed();
    Report(file.inode->size);
    return {};
  }

  // Copies [offset, end); stops short when the file does.
  Status ReadRange(int fd, std::uint64_t offset, std::uint64_t end) {
    ChunkPipeline& pipeline = build_.pipeline();
    while (offset < end) {
      MutableBytes space = pipeline.Space();
      space = space.first(
          static_cast<std::size_t>(std::min<std::uint64_t>(space.size(), end - offset)));
      DAVIT_TRY_ASSIGN(const std::size_t n, PreadFull(fd, space, offset));
      if (n == 0) return {};
      DAVIT_TRY(pipeline.Commit(n));
      offset += n;
      DAVIT_TRY(ctx_.Check("build from directory"));
    }
    return {};
  }

  // Holes are not read.
  Status ReadSparse(int fd, std::uint64_t size) {
    std::uint64_t at = 0;
    while (at < size) {
      const off_t data = ::lseek(fd, static_cast<off_t>(at), SEEK_DATA);
      if (data < 0 && errno != ENXIO) return ReadRange(fd, at, size);  // not supported here
      const std::uint64_t begin =
          data < 0 ? size : std::min<std::uint64_t>(static_cast<std::uint64_t>(data), size);
      DAVIT_TRY(build_.pipeline().AppendZeros(begin - at));
      if (begin == size) break;
      const off_t hole = ::lseek(fd, data, SEEK_HOLE);
      if (hole < 0) return Error::FromErrno(errno, "find the end of data");
      const std::uint64_t end = std::min<std::uint64_t>(static_cast<std::uint64_t>(hole), size);
      DAVIT_TRY(ReadRange(fd, begin, end));
      at = end;
    }
    return {};
  }

  void Report(std::uint64_t bytes) {
    bytes_ += bytes;
    if (progress_) progress_(bytes_);
  }

  const Context& ctx_;
  const std::string root_path_;
  const BuildOptions& options_;
  SourceBuild& build_;
  const BuildProgress& progress_;
  UniqueFd root_;
  std::vector<FileToRead> files_;  // breadth first
  std::map<std::pair<dev_t, ino_t>, std::shared_ptr<TreeInode>> links_;
  std::vector<char> names_ = std::vector<char>(64U << 10);  // the kernel's limits of both
  std::vector<char> value_ = std::vector<char>(64U << 10);
  std::uint64_t bytes_ = 0;
};

}  // namespace

Result<Tree> BuildDirectory(const Context& ctx, const std::string& directory,
                            const BuildOptions& options, const std::string& work_dir,
                            BlobSet& blobs, ChunkDict* dict, const BuildProgress& progress) {
  DAVIT_TRY_ASSIGN(auto build, SourceBuild::Start(options, work_dir, blobs, dict));
  DAVIT_TRY_ASSIGN(Tree tree, DirectoryReader(ctx, directory, options, *build, progress).Read());
  DAVIT_TRY(build->Finish(tree));
  return tree;
}

}  // namespace davit::rafs
