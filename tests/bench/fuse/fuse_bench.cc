// Speed of the FUSE front end alone: a complete image, no network, no cache logic. A child process
// serves, this one measures. Needs root (mount, drop_caches).
//
//   fuse_bench DATA_FILE [--rest N] [--read-ahead-kb N] [--no-xattrs]
//
// DATA_FILE: some 1 GiB of bytes on the disk to be measured; it is the content of one file.

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "rafs/fuse/session.h"
#include "tests/support/fake_image/fake_image.h"

namespace davit {
namespace {

constexpr int kDirs = 5400;
constexpr int kFilesPerDir = 7;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Die(const std::string& why) {
  std::fprintf(stderr, "fuse_bench: %s\n", why.c_str());
  std::exit(1);
}

void DropCaches() {
  ::sync();
  const int fd = ::open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
  if (fd < 0 || ::write(fd, "3", 1) != 1) Die("cannot drop caches: run it as root");
  ::close(fd);
}

struct Setup {
  std::string data;
  std::string mountpoint;
  bool xattrs = true;
  rafs::FuseOptions options;
};

std::string DirName(int i) { return "tree/d" + std::to_string(i / 60) + "/e" + std::to_string(i); }

[[noreturn]] void Serve(const Setup& setup, int ready) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto fd = OpenFile(setup.data, O_RDONLY);
  if (!fd) Die(fd.error().ToString());
  const std::uint64_t size = FileSize(fd->get()).value();
  testing::FakeImage image;
  image.UseBlob(std::make_shared<testing::FakeBlob>(*std::move(fd), size));
  image.Extent("big", 0, size);
  for (int d = 0; d < kDirs; ++d) {
    for (int f = 0; f < kFilesPerDir; ++f) {
      image.Extent(DirName(d) + "/file" + std::to_string(f), 4096ULL * static_cast<unsigned>(f),
                   3000);
    }
  }
  if (setup.xattrs) image.Xattr("big", "security.capability", "0123456789abcdefghij");
  auto session = rafs::FuseSession::Start(image.TakeFilesystem(), setup.options);
  if (!session) Die(session.error().ToString());
  if (::write(ready, "r", 1) != 1) Die("the other process is gone");
  for (;;) ::pause();
}

double ReadAll(const std::string& path, std::size_t step) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) Die("open " + path);
  std::vector<char> buffer(step);
  std::uint64_t total = 0;
  const double start = Now();
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), step);
    if (got < 0) Die("read " + path);
    if (got == 0) break;
    total += static_cast<std::uint64_t>(got);
  }
  const double seconds = Now() - start;
  ::close(fd);
  return static_cast<double>(total) / seconds / 1e6;
}

double MapAll(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat st{};
  if (fd < 0 || ::fstat(fd, &st) != 0) Die("open " + path);
  const auto size = static_cast<std::size_t>(st.st_size);
  void* const memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) Die("mmap");
  const double start = Now();
  volatile unsigned sum = 0;
  for (std::size_t i = 0; i < size; i += 4096)
    sum = sum + static_cast<const unsigned char*>(memory)[i];
  const double seconds = Now() - start;
  ::munmap(memory, size);
  ::close(fd);
  return static_cast<double>(size) / seconds / 1e6;
}

double PerSecond(const std::function<void(int)>& call) {
  for (int i = 0; i < kDirs; ++i) call(i);  // what the kernel caches is cached
  const double start = Now();
  int n = 0;
  while (Now() - start < 1.0) {
    for (int i = 0; i < 200; ++i) call(n++);
  }
  return n / (Now() - start);
}

double Timed(const std::string& command) {
  const double start = Now();
  if (std::system(command.c_str()) != 0) Die(command + " failed");
  return Now() - start;
}

long PssKb(pid_t pid) {
  const auto text = ReadFile("/proc/" + std::to_string(pid) + "/smaps_rollup");
  const std::size_t at = text ? text->find("Pss:") : std::string::npos;
  return at == std::string::npos ? -1 : std::strtol(text->c_str() + at + 4, nullptr, 10);
}

void Print(const char* what, double value, const char* unit) {
  std::printf("%-44s %12.1f %s\n", what, value, unit);
  std::fflush(stdout);
}

void Measure(const Setup& setup, pid_t server) {
  const std::string root = setup.mountpoint;
  Print("memory of the server at the start (PSS)", static_cast<double>(PssKb(server)), "kB");
  Print("ls -lR right after the mount", Timed("ls -lR " + root + " >/dev/null"), "s");
  Print("ls -lR again", Timed("ls -lR " + root + " >/dev/null"), "s");
  Print("find -printf %s", Timed("find " + root + " -printf '%s\\n' >/dev/null"), "s");
  const std::string big = root + "/big";
  double dropped = 0, local = 0;
  ReadAll(setup.data, 1U << 20);
  for (int i = 0; i < 4; ++i) {
    DropCaches();
    local = std::max(local, ReadAll(setup.data, 1U << 20));
    DropCaches();
    dropped = std::max(dropped, ReadAll(big, 1U << 20));
  }
  Print("the data file itself, caches dropped, 1M", local, "MB/s");
  Print("caches dropped, sequential 1M", dropped, "MB/s");
  double warm = 0, mapped = 0;
  for (int i = 0; i < 4; ++i) {
    warm = std::max(warm, ReadAll(big, 128U << 10));
    mapped = std::max(mapped, MapAll(big));
  }
  Print("warm, sequential 128K", warm, "MB/s");
  Print("warm, mmap sequential", mapped, "MB/s");
  std::vector<std::string> files, dirs;
  for (int d = 0; d < kDirs; ++d) {
    dirs.push_back(root + "/" + DirName(d));
    files.push_back(dirs.back() + "/file" + std::to_string(d % kFilesPerDir));
  }
  char value[256];
  const auto file = [&files](int i) {
    return files[static_cast<std::size_t>(i) % files.size()].c_str();
  };
  Print("getxattr security.capability", PerSecond([&](int i) {
          ::lgetxattr(file(i), "security.capability", value, sizeof(value));
        }),
        "/s");
  Print("listxattr", PerSecond([&](int i) { ::llistxattr(file(i), value, sizeof(value)); }), "/s");
  Print("lstat", PerSecond([&](int i) {
          struct stat st{};
          ::lstat(file(i), &st);
        }),
        "/s");
  Print("open + close", PerSecond([&](int i) { ::close(::open(file(i), O_RDONLY | O_CLOEXEC)); }),
        "/s");
  Print("opendir + readdir + closedir", PerSecond([&](int i) {
          DIR* const dir = ::opendir(dirs[static_cast<std::size_t>(i) % dirs.size()].c_str());
          while (::readdir(dir) != nullptr) {
          }
          ::closedir(dir);
        }),
        "/s");
  Print("memory of the server at the end (PSS)", static_cast<double>(PssKb(server)), "kB");
}

int Main(int argc, char** argv) {
  if (argc < 2) Die("usage: fuse_bench DATA_FILE [--rest N] [--read-ahead-kb N] [--no-xattrs]");
  Setup setup;
  setup.data = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    const bool more = i + 1 < argc;
    if (word == "--no-xattrs") {
      setup.xattrs = false;
    } else if (word == "--rest" && more) {
      setup.options.threads = std::atoi(argv[++i]);
    } else if (word == "--read-ahead-kb" && more) {
      setup.options.read_ahead_bytes = static_cast<std::uint32_t>(std::atoi(argv[++i])) * 1024;
    } else {
      Die("unknown option " + word);
    }
  }
  auto directory = TempDir::Create("davit-fuse-bench");
  if (!directory) Die(directory.error().ToString());
  setup.mountpoint = setup.options.mountpoint = directory->path();
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) Die("pipe");
  const pid_t server = ::fork();
  if (server == 0) Serve(setup, ready[1]);
  ::close(ready[1]);
  char byte = 0;
  if (::read(ready[0], &byte, 1) != 1) Die("the server did not start");
  Measure(setup, server);
  ::kill(server, SIGKILL);
  ::waitpid(server, nullptr, 0);
  if (std::system(("umount -l " + setup.mountpoint).c_str()) != 0) Die("umount failed");
  return 0;
}

}  // namespace
}  // namespace davit

int main(int argc, char** argv) { return davit::Main(argc, argv); }
