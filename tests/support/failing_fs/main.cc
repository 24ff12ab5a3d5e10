// A directory shown somewhere else, as a disk that fails on demand: a FUSE file system that passes
// everything on and answers with errors when it is told to.
//
// usage: failing-fs DIRECTORY MOUNTPOINT SWITCHES
// SWITCHES is a file outside of both; it is looked at before every operation. A line of it is
// "OPERATION ERRNO", for example "write 5"; operations: read, read_unwritten (of files that were
// not written to while the switch is on), write, sync, truncate, punch, open_write, create, unlink,
// rename, mkdir. The errno -1 makes the operation wait for as long as the line is there. Without
// the file all is well. Ends with the unmount.

#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <fcntl.h>
#include <fuse.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

namespace {

std::string root;      // NOLINT: set once before anything runs
std::string switches;  // NOLINT
std::mutex written_mutex;
std::set<std::string, std::less<>> written;  // NOLINT

// Negative errno when the operation is to fail now.
int Fails(std::string_view operation) {
  while (true) {
    std::ifstream file(switches);
    std::string name;
    int error = 0;
    bool wait = false;
    while (!wait && file >> name >> error) {
      if (name != operation) continue;
      if (error >= 0) return -error;
      wait = true;
    }
    if (!wait) return 0;
    ::usleep(10'000);
  }
}

std::string Real(const char* path) { return root + path; }
int Outcome(int result) { return result < 0 ? -errno : 0; }
int Fd(const fuse_file_info* info) { return static_cast<int>(info->fh); }

int GetAttr(const char* path, struct stat* st, fuse_file_info* info) {
  return Outcome(info != nullptr ? ::fstat(Fd(info), st) : ::lstat(Real(path).c_str(), st));
}

int ReadDir(const char* path, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*,
            fuse_readdir_flags) {
  DIR* dir = ::opendir(Real(path).c_str());
  if (dir == nullptr) return -errno;
  while (const dirent* entry = ::readdir(dir)) {
    fill(buffer, entry->d_name, nullptr, 0, static_cast<fuse_fill_dir_flags>(0));
  }
  ::closedir(dir);
  return 0;
}

int OpenWith(const char* path, int flags, mode_t mode, fuse_file_info* info) {
  const int fd = ::open(Real(path).c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) return -errno;
  info->fh = static_cast<std::uint64_t>(fd);
  info->direct_io = 1;  // the fault is seen by who reads, not by the page cache
  return 0;
}

int Open(const char* path, fuse_file_info* info) {
  if ((info->flags & O_ACCMODE) != O_RDONLY) {
    if (const int error = Fails("open_write")) return error;
  }
  return OpenWith(path, info->flags & ~O_APPEND, 0, info);
}

int Create(const char* path, mode_t mode, fuse_file_info* info) {
  if (const int error = Fails("create")) return error;
  return OpenWith(path, info->flags | O_CREAT, mode, info);
}

int Read(const char* path, char* data, std::size_t size, off_t offset, fuse_file_info* info) {
  if (const int error = Fails("read")) return error;
  if (const int error = Fails("read_unwritten")) {
    const std::lock_guard lock(written_mutex);
    if (!written.contains(path)) return error;
  }
  const ssize_t n = ::pread(Fd(info), data, size, offset);
  return n < 0 ? -errno : static_cast<int>(n);
}

int Write(const char* path, const char* data, std::size_t size, off_t offset,
          fuse_file_info* info) {
  if (const int error = Fails("write")) return error;
  if (Fails("read_unwritten") != 0) {
    const std::lock_guard lock(written_mutex);
    written.insert(path);
  }
  const ssize_t n = ::pwrite(Fd(info), data, size, offset);
  return n < 0 ? -errno : static_cast<int>(n);
}

int Sync(const char*, int data_only, fuse_file_info* info) {
  if (const int error = Fails("sync")) return error;
  return Outcome(data_only != 0 ? ::fdatasync(Fd(info)) : ::fsync(Fd(info)));
}

int SyncDir(const char*, int, fuse_file_info*) { return Fails("sync"); }

int Truncate(const char* path, off_t size, fuse_file_info* info) {
  if (const int error = Fails("truncate")) return error;
  return Outcome(info != nullptr ? ::ftruncate(Fd(info), size)
                                 : ::truncate(Real(path).c_str(), size));
}

int Allocate(const char*, int mode, off_t offset, off_t length, fuse_file_info* info) {
  if (const int error = Fails("punch")) return error;
  return Outcome(::fallocate(Fd(info), mode, offset, length));
}

int Release(const char*, fuse_file_info* info) { return Outcome(::close(Fd(info))); }

int Unlink(const char* path) {
  if (const int error = Fails("unlink")) return error;
  return Outcome(::unlink(Real(path).c_str()));
}

int RemoveDir(const char* path) {
  if (const int error = Fails("unlink")) return error;
  return Outcome(::rmdir(Real(path).c_str()));
}

int MakeDir(const char* path, mode_t mode) {
  if (const int error = Fails("mkdir")) return error;
  return Outcome(::mkdir(Real(path).c_str(), mode));
}

int Rename(const char* from, const char* to, unsigned flags) {
  if (flags != 0) return -EINVAL;
  if (const int error = Fails("rename")) return error;
  return Outcome(::rename(Real(from).c_str(), Real(to).c_str()));
}

int ChangeMode(const char* path, mode_t mode, fuse_file_info*) {
  return Outcome(::chmod(Real(path).c_str(), mode));
}

int StatFs(const char* path, struct statvfs* st) {
  return Outcome(::statvfs(Real(path).c_str(), st));
}

off_t Seek(const char*, off_t offset, int whence, fuse_file_info* info) {
  const off_t at = ::lseek(Fd(info), offset, whence);
  return at < 0 ? -errno : at;
}

void* Init(fuse_conn_info*, fuse_config* config) {
  config->use_ino = 1;
  config->attr_timeout = config->entry_timeout = config->negative_timeout = 0;
  return nullptr;
}

fuse_operations Operations() {
  fuse_operations ops{};
  ops.init = Init;
  ops.getattr = GetAttr;
  ops.readdir = ReadDir;
  ops.open = Open;
  ops.create = Create;
  ops.read = Read;
  ops.write = Write;
  ops.fsync = Sync;
  ops.fsyncdir = SyncDir;
  ops.truncate = Truncate;
  ops.fallocate = Allocate;
  ops.release = Release;
  ops.unlink = Unlink;
  ops.rmdir = RemoveDir;
  ops.mkdir = MakeDir;
  ops.rename = Rename;
  ops.chmod = ChangeMode;
  ops.statfs = StatFs;
  ops.lseek = Seek;
  return ops;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: failing-fs DIRECTORY MOUNTPOINT SWITCHES\n", stderr);
    return 2;
  }
  root = argv[1];
  switches = argv[3];
  std::string program = "failing-fs";
  std::string foreground = "-f";
  std::string point = argv[2];
  char* words[] = {program.data(), foreground.data(), point.data(), nullptr};
  const fuse_operations ops = Operations();
  return fuse_main(3, words, &ops, nullptr);
}
