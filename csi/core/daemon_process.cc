#include "csi/core/daemon_process.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

// glibc 2.36 forgot that C++ programs include it.
extern "C" {
#include <sys/pidfd.h>
}

#include "common/base/log.h"
#include "common/base/thread_pool.h"

namespace davit::csi {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPollInterval{50};
constexpr milliseconds kForever{-1};

// The environment with `added` in it; added values win.
std::vector<std::string> MergedEnvironment(
    const std::vector<std::pair<std::string, std::string>>& added) {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string_view name = text.substr(0, text.find('='));
    const bool replaced =
        std::ranges::any_of(added, [&](const auto& e) { return e.first == name; });
    if (!replaced) out.emplace_back(text);
  }
  for (const auto& [name, value] : added) out.push_back(name + "=" + value);
  return out;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

std::string ExitText(pid_t pid, bool ours) {
  if (!ours) return "ended";
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) return "ended";
  if (WIFEXITED(status)) return fmt::format("exited with code {}", WEXITSTATUS(status));
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return "ended";
}

}  // namespace

Result<std::unique_ptr<DaemonProcess>> DaemonProcess::Start(Options options,
                                                            daemon::Client& client) {
  if (::access(options.program.c_str(), X_OK) != 0) {
    return Error::FromErrno(errno, "run " + options.program)
        .WithHint("install davitd beside davit-csi, or name a running one with --daemon-socket");
  }
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return Error::FromErrno(errno, "eventfd");
  std::unique_ptr<DaemonProcess> process(
      new DaemonProcess(std::move(options), client, std::move(wake)));
  process->thread_ = std::thread([raw = process.get()] { raw->Run(); });
  return process;
}

DaemonProcess::~DaemonProcess() {
  stop_.request_stop();
  const std::uint64_t one = 1;
  static_cast<void>(!::write(wake_.get(), &one, sizeof one));  // cannot fail: the counter is 0
  thread_.join();
}

// False when the end has come.
bool DaemonProcess::Pause(milliseconds duration) {
  pollfd wait{.fd = wake_.get(), .events = POLLIN, .revents = 0};
  ::poll(&wait, 1, static_cast<int>(duration.count()));
  return !stop_.stop_requested();
}

Result<DaemonProcess::Child> DaemonProcess::TakeOver() {
  DAVIT_TRY_ASSIGN(const std::string text, ReadFile(options_.pid_file, 64));
  pid_t pid = 0;
  std::from_chars(text.data(), text.data() + text.size(), pid);
  Context ctx;
  ctx.stop = stop_.get_token();
  DAVIT_TRY_ASSIGN(const auto info, client_.Info(ctx.WithTimeout(std::chrono::seconds(2))));
  if (pid <= 1 || info.pid != pid) {
    return Error(Code::kNotFound, "the daemon that runs is not ours");
  }
  Child child{.pid = pid, .pidfd = UniqueFd(::pidfd_open(pid, 0)), .ours = false};
  if (!child.pidfd) return Error::FromErrno(errno, "pidfd_open");
  return child;
}

Result<DaemonProcess::Child> DaemonProcess::Spawn() {
  std::vector<std::string> argv = {options_.program};
  argv.insert(argv.end(), options_.arguments.begin(), options_.arguments.end());
  std::vector<std::string> env = MergedEnvironment(options_.env);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  // Its own group: a Ctrl-C at the terminal must not end it before its volumes are unpublished.
  ::posix_spawnattr_setflags(
      &attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  Child child{.ours = true};
  const int failure = ::posix_spawn(&child.pid, options_.program.c_str(), nullptr, &attributes,
                                    Pointers(argv).data(), Pointers(env).data());
  ::posix_spawnattr_destroy(&attributes);
  if (failure != 0) return Error::FromErrno(failure, "start " + options_.program);
  // A child that has not been waited for keeps its pid, so this is the right one.
  child.pidfd = UniqueFd(::pidfd_open(child.pid, 0));
  if (!child.pidfd) {
    Error error = Error::FromErrno(errno, "pidfd_open");
    ::kill(child.pid, SIGKILL);
    ::waitpid(child.pid, nullptr, 0);
    return error;
  }
  Status noted = WriteFileAtomic(options_.pid_file, AsBytes(std::to_string(child.pid)));
  if (!noted.ok()) log::Warn("the daemon's pid was not noted", {{"error", noted.error()}});
  return child;
}

// Whether the process ended within `patience` (negative: no limit). `until_stop`: give up when the
// end has come.
bool DaemonProcess::WaitForExit(const Child& child, milliseconds patience, bool until_stop) {
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    std::array<pollfd, 2> wait = {pollfd{child.pidfd.get(), POLLIN, 0},
                                  pollfd{wake_.get(), POLLIN, 0}};
    int timeout = -1;
    if (patience >= milliseconds(0)) {
      const auto left = patience - std::chrono::duration_cast<milliseconds>(
                                       std::chrono::steady_clock::now() - start);
      timeout = static_cast<int>(std::max<std::int64_t>(left.count(), 0));
    }
    const int n = ::poll(wait.data(), until_stop ? 2 : 1, timeout);
    if (n < 0 && errno == EINTR) continue;
    if (wait[0].revents != 0) return true;
    return false;
  }
}

bool DaemonProcess::WaitUntilAnswers(const Child& child) {
  Context ctx;
  ctx.stop = stop_.get_token();
  ctx = ctx.WithTimeout(options_.start_patience);
  while (ctx.Check("wait for davitd").ok()) {
    auto info = client_.Info(ctx.WithTimeout(std::chrono::seconds(2)));
    if (info.ok() && info->pid == child.pid && info->state != "starting") return true;
    if (info.ok() && info->pid != child.pid) {
      log::Error("another davitd answers on the socket", {{"pid", info->pid}});
      return false;
    }
    if (WaitForExit(child, kPollInterval, true)) return false;
  }
  if (!stop_.stop_requested()) log::Error("davitd does not answer", {{"pid", child.pid}});
  return false;
}

void DaemonProcess::Stop(Child& child) {
  ::pidfd_send_signal(child.pidfd.get(), SIGTERM, nullptr, 0);
  if (!WaitForExit(child, options_.stop_patience, false)) {
    log::Error("davitd does not end; killing it", {{"pid", child.pid}});
    ::pidfd_send_signal(child.pidfd.get(), SIGKILL, nullptr, 0);
    WaitForExit(child, kForever, false);
  }
  log::Info("davitd stopped", {{"pid", child.pid}, {"how", ExitText(child.pid, child.ours)}});
  ::unlink(options_.pid_file.c_str());
}

void DaemonProcess::Run() {
  SetThreadName("csi-daemon");
  milliseconds backoff = options_.backoff_min;
  while (!stop_.stop_requested()) {
    const auto started = std::chrono::steady_clock::now();
    auto child = TakeOver();
    if (!child.ok()) child = Spawn();
    if (!child.ok()) {
      log::Error("davitd cannot be started", {{"error", child.error()}});
    } else {
      log::Info(child->ours ? "davitd started" : "davitd runs already; taken over",
                {{"pid", child->pid}});
      const bool answers = WaitUntilAnswers(*child);
      if (answers && options_.on_started) options_.on_started();
      const bool ended = WaitForExit(*child, answers ? kForever : milliseconds(0), true);
      if (!ended) {
        // Either it is time to go, or it lives but does not answer: begin anew.
        Stop(*child);
        if (stop_.stop_requested()) return;
      } else {
        log::Error("davitd is gone; its volumes do not work until it is back",
                   {{"pid", child->pid}, {"how", ExitText(child->pid, child->ours)}});
      }
    }
    if (std::chrono::steady_clock::now() - started > options_.backoff_max * 2) {
      backoff = options_.backoff_min;
    }
    if (!Pause(backoff)) return;
    backoff = std::min(backoff * 2, options_.backoff_max);
  }
}

}  // namespace davit::csi
