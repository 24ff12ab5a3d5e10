// libfuse's session: the connection to a kernel.

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/base/log.h"
#include "rafs/fuse/core.h"
#include "rafs/fuse/session_ops.h"

namespace davit::rafs {
namespace {

[[gnu::format(printf, 2, 0)]] void ToLog(fuse_log_level level, const char* format, va_list args) {
  char text[512];
  const int length = std::vsnprintf(text, sizeof(text), format, args);
  if (length <= 0) return;
  std::string_view line(text,
                        std::min<std::size_t>(static_cast<std::size_t>(length), sizeof(text) - 1));
  while (line.ends_with('\n')) line.remove_suffix(1);
  log::Write(level <= FUSE_LOG_WARNING ? log::Level::kWarn : log::Level::kDebug, "libfuse",
             {{"text", line}});
}

// libfuse 3.14 takes FUSE_CAP_PARALLEL_DIROPS and forgets to tell the kernel, which then lets one
// lookup or listing per directory through at a time. The flag is added to the reply to INIT.
void PatchInitReply(Core& core, const iovec* parts, int count) {
  if (core.init_answered.load(std::memory_order_relaxed)) return;
  fuse_init_out reply{};
  if (count != 2 || parts[1].iov_len != sizeof(reply)) return;
  std::memcpy(&reply, parts[1].iov_base, sizeof(reply));
  if ((core.capabilities & FUSE_CAP_PARALLEL_DIROPS) != 0) reply.flags |= FUSE_PARALLEL_DIROPS;
  std::memcpy(parts[1].iov_base, &reply, sizeof(reply));
  core.init_answered.store(true, std::memory_order_relaxed);
}

ssize_t ReadSocket(int fd, void* buffer, std::size_t size, void*) {
  const ssize_t got = ::recv(fd, buffer, size, 0);
  if (got != 0) return got;
  errno = ENODEV;  // closed: what /dev/fuse says when it is unmounted
  return -1;
}

ssize_t WriteSocket(int fd, iovec* parts, int count, void* userdata) {
  PatchInitReply(*static_cast<Core*>(userdata), parts, count);
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<std::size_t>(count);
  return ::sendmsg(fd, &message, MSG_NOSIGNAL);
}

ssize_t WriteDevice(int fd, iovec* parts, int count, void* userdata) {
  PatchInitReply(*static_cast<Core*>(userdata), parts, count);
  return ::writev(fd, parts, count);
}

ssize_t ReadDevice(int fd, void* buffer, std::size_t size, void*) {
  return ::read(fd, buffer, size);
}

class FuseChannel : public Channel {
 public:
  explicit FuseChannel(Core& core) : core_(core) {}
  ~FuseChannel() override {
    if (session_ != nullptr) fuse_session_destroy(session_);
  }

  Status Open(std::vector<std::string> words) {
    fuse_set_log_func(ToLog);
    std::vector<char*> argv;
    argv.reserve(words.size());
    for (std::string& word : words) argv.push_back(word.data());
    fuse_args args = FUSE_ARGS_INIT(static_cast<int>(argv.size()), argv.data());
    session_ = fuse_session_new(&args, &SessionOps(), sizeof(fuse_lowlevel_ops), &core_);
    fuse_opt_free_args(&args);
    if (session_ == nullptr) return Error(Code::kInternal, "libfuse refused to make a session");
    return {};
  }

  Status ServeDevice(UniqueFd device) override {
    return Serve(std::move(device), ReadDevice, WriteDevice);
  }

  Status ServeSocket(UniqueFd socket) override {
    return Serve(std::move(socket), ReadSocket, WriteSocket);
  }

  Status MountWithHelper(const std::string& path) override {
    if (fuse_session_mount(session_, path.c_str()) != 0) {
      return Error(Code::kPermissionDenied, "fusermount3 could not mount on " + path, EPERM)
          .WithHint("see the warnings above; it takes /dev/fuse and the package fuse3");
    }
    return {};
  }

  bool Receive(Message& message) override {
    fuse_buf buffer{};
    buffer.mem = message.memory;
    int got = 0;
    do {
      got = fuse_session_receive_buf(session_, &buffer);
      message.memory = buffer.mem;
    } while (got == -EINTR || got == -EAGAIN);
    message.size = got > 0 ? static_cast<std::size_t>(got) : 0;
    return got > 0;
  }

  void Process(const Message& message) override {
    fuse_buf buffer{};
    buffer.mem = message.memory;
    buffer.size = message.size;
    fuse_session_process_buf(session_, &buffer);
    if (!initialised_.load(std::memory_order_relaxed)) {
      const MutexLock lock(mutex_);
      initialised_.store(true);
      first_answered_.NotifyAll();
    }
  }

  void Free(Message& message) override {
    std::free(message.memory);  // libfuse allocates it with malloc
    message.memory = nullptr;
  }

  bool WaitUntilInitialised(Duration timeout) override {
    const TimePoint until = std::chrono::steady_clock::now() + timeout;
    const MutexLock lock(mutex_);
    while (!initialised_.load()) {
      const Duration left = until - std::chrono::steady_clock::now();
      if (left <= Duration::zero()) return false;
      first_answered_.WaitFor(mutex_, left);
    }
    return true;
  }

  void AnswerCancelled(std::vector<std::unique_ptr<SlowRead>> reads) override {
    AnswerCancelledReads(std::move(reads));
  }

 private:
  Status Serve(UniqueFd fd, decltype(fuse_custom_io::read) read,
               decltype(fuse_custom_io::writev) write) {
    fuse_custom_io io{};
    io.read = read;
    io.writev = write;
    if (const int err = fuse_session_custom_io(session_, &io, fd.get()); err != 0) {
      return Error::FromErrno(-err, "give libfuse a descriptor");
    }
    fd.release();  // closed with the session
    return {};
  }

  Core& core_;
  fuse_session* session_ = nullptr;
  std::atomic<bool> initialised_{false};
  Mutex mutex_;
  CondVar first_answered_;
};

std::string EscapeOption(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == ',' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<Channel>> Channel::Create(Core& core, bool allow_other) {
  // libfuse wants to hear max_read here too; the rest is for MountWithHelper.
  std::string options =
      "-oro,nosuid,nodev,noatime,subtype=davit,max_read=" + std::to_string(kMaxRead) +
      ",fsname=" + EscapeOption(core.options.fs_name);
  if (core.options.default_permissions) options += ",default_permissions";
  if (allow_other) options += ",allow_other";
  auto channel = std::make_unique<FuseChannel>(core);
  DAVIT_TRY(channel->Open({"davit", options}));
  return channel;
}

}  // namespace davit::rafs
