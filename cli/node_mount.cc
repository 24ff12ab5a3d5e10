// davit mount, davit umount: with the daemon that runs, or one that is started for it.

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>
#include <thread>
#include <utility>

#include "cli/davitd_app.h"
#include "cli/mount_progress.h"
#include "cli/node_session.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/config/units.h"
#include "common/digest/digest.h"
#include "daemon/core/daemon.h"
#include "storage/registry/reference.h"

namespace davit::cli {
namespace {

constexpr auto kLastLook = std::chrono::seconds(5);
constexpr auto kRestoreWait = std::chrono::seconds(60);  // for mounts of the daemon before

using daemon::api::MountInfo;
using daemon::api::MountRequest;

struct MountFlags {
  NodeOptions node;
  std::string image, directory, id, platform, auth_file;
  std::string ready = "mounted";
  std::string timeout;
  bool no_fill = false, plain_http = false, foreground = false;
};

// The same directory always gets the same name.
std::string DefaultId(const std::string& directory) {
  std::string name;
  for (char c : directory.substr(directory.find_last_of('/') + 1)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (name.size() < 40) name += plain || c == '.' || c == '-' ? c : '_';
  }
  const std::string hex = Digest::Of(DigestAlgorithm::kSha256, AsBytes(directory)).Hex();
  return fmt::format("{}-{}", name, hex.substr(0, 8));
}

// A config.json's text: the named file, or $IMAGE_PULL_AUTH for the image's host.
Result<Secret> AuthOf(const MountFlags& flags) {
  if (!flags.auth_file.empty()) {
    DAVIT_TRY_ASSIGN(std::string text, ReadFile(flags.auth_file, 1U << 20));
    return Secret(std::move(text));
  }
  const char* value = std::getenv("IMAGE_PULL_AUTH");
  if (value == nullptr || *value == '\0') return Secret();
  DAVIT_TRY_ASSIGN(const registry::Reference reference, registry::Reference::Parse(flags.image));
  const nlohmann::json config{{"auths", {{reference.host, {{"auth", value}}}}}};
  return Secret(config.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

Result<MountRequest> RequestOf(const MountFlags& flags) {
  MountRequest request;
  request.source = flags.image;
  // Relative layouts mean the caller's directory, not the daemon's.
  if (request.source.starts_with("oci:") && !request.source.starts_with("oci:/")) {
    request.source = "oci:" + AbsolutePath(request.source.substr(4));
  }
  request.mountpoint = AbsolutePath(flags.directory);
  request.id = flags.id.empty() ? DefaultId(request.mountpoint) : flags.id;
  request.platform = flags.platform;
  DAVIT_TRY_ASSIGN(request.ready, daemon::api::ParseReady(flags.ready));
  request.fill = !flags.no_fill;
  request.plain_http = flags.plain_http;
  DAVIT_TRY_ASSIGN(request.registry_auth, AuthOf(flags));
  DAVIT_TRY(request.Validate());
  return request;
}

// How long the caller waits; for ever unless it says so.
Context LimitOf(const MountFlags& flags) {
  if (flags.timeout.empty()) return {};
  const auto limit = ParseDuration(flags.timeout);
  return limit ? Context{}.WithTimeout(*limit) : Context{};  // parsed before: see CheckTimeout
}

std::string CheckTimeout(const std::string& text) {
  const auto limit = ParseDuration(text);
  if (!limit) return limit.error().ToString();
  return limit->count() > 0 ? "" : "0 is no time to wait: give a longer one, or leave it away";
}

void Report(Io& io, const MountFlags& flags, const MountInfo& info) {
  if (flags.node.output == "json") {
    io.out << daemon::api::ToJson(info) << "\n";
    return;
  }
  io.out << fmt::format("{} is mounted at {} ({} ms, id {})\n", info.source, info.mountpoint,
                        info.mount_ms, info.id);
}

std::string DavitdProgram() {
  std::error_code failed;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (failed) return "davitd";
  return (self.parent_path() / "davitd").string();
}

// davitd in a session of its own; it ends when it has had nothing to do for a while.
Status StartDaemon(NodeSession& session) {
  const Config& config = session.config();
  DAVIT_TRY(MakeDirectories(config.node.state_dir));
  const std::string log_file =
      config.log.file.empty() ? config.node.state_dir + "/davitd.log" : config.log.file;
  std::vector<std::string> words{DavitdProgram(), "--socket",    config.api.socket,
                                 "--log-file",    log_file,      "--on-stop",
                                 "forget",        "--idle-exit", "30s"};
  if (!session.config_file().empty()) {
    words.insert(words.end(), {"--config", session.config_file()});
  }
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  // What it says before its log is open (a port in use, a wrong key) goes to the log as well.
  ::posix_spawn_file_actions_addopen(&files, STDERR_FILENO, log_file.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
  pid_t pid = 0;
  const int failed = ::posix_spawnp(&pid, argv[0], &files, &attributes, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (failed != 0) {
    return Error::FromErrno(failed, "start " + words[0])
        .WithHint("install davitd beside davit, or start it yourself");
  }
  TimePoint until = Clock::Real().Now() + std::chrono::seconds(30);
  bool ended = false;
  while (Clock::Real().Now() < until) {
    if (session.DaemonRuns()) return {};
    int status = 0;
    if (!ended && ::waitpid(pid, &status, WNOHANG) == pid) {
      // Another command may have started one at the same moment: then that one answers soon.
      ended = true;
      until = Clock::Real().Now() + std::chrono::seconds(2);
    }
    Clock::Real().SleepFor(std::chrono::milliseconds(20), {});
  }
  if (ended) {
    return Error(Code::kUnavailable, "davitd ended at once").WithHint("see " + log_file);
  }
  return Error(Code::kDeadlineExceeded, "davitd does not answer").WithHint("see " + log_file);
}

// Asks while a mount call waits for `prefetched` or `complete`.
class LiveLine {
 public:
  LiveLine(Io& io, const MountFlags& flags, daemon::Client& client, std::string id) {
    if (flags.node.output == "json") return;
    thread_ = std::jthread([&io, &client, id = std::move(id)](const std::stop_token& stop) {
      MountProgress progress(io, ColumnsOf(io));
      while (Clock::Real().SleepFor(std::chrono::milliseconds(300), stop)) {
        const auto info = client.Get(Context{}.WithTimeout(std::chrono::seconds(2)), id);
        if (info && info->state == "mounting") progress.Show(*info);
      }
    });
  }

 private:
  std::jthread thread_;
};

// When the caller's time is over: the mount as it is now, or why there is none. What it reached at
// the last moment counts.
Result<MountInfo> AtTheLimit(NodeSession& session, const MountFlags& flags,
                             const MountRequest& request) {
  DAVIT_TRY_ASSIGN(MountInfo info,
                   session.client().Get(Context{}.WithTimeout(kLastLook), request.id));
  if (info.state == "mounting") {
    return NotReadyInTime(info, request.ready, flags.timeout,
                          fmt::format("it goes on in the background: davit ps shows it, davit "
                                      "umount {} ends it",
                                      request.id));
  }
  if (info.state == "mounted") return info;
  return Error(daemon::api::CodeFromName(info.error_code).value_or(Code::kInternal), info.error);
}

Status MountByDaemon(Io& io, NodeSession& session, const MountFlags& flags) {
  DAVIT_TRY_ASSIGN(const MountRequest request, RequestOf(flags));
  const bool started = !session.DaemonRuns();
  if (started) DAVIT_TRY(StartDaemon(session));
  Result<MountInfo> info = Error(Code::kInternal, "not run");
  const Context ctx = LimitOf(flags);
  {
    const LiveLine line(io, flags, session.client(), request.id);
    info = session.client().Mount(ctx, request);
    // A new daemon brings back what there was before; this mount may be among it.
    const auto give_up = std::chrono::steady_clock::now() + kRestoreWait;
    while (started && !info && info.error().code() == Code::kAborted &&
           std::chrono::steady_clock::now() < give_up) {
      Clock::Real().SleepFor(std::chrono::milliseconds(50), {});
      info = session.client().Mount(ctx, request);
    }
  }
  if (!info && info.error().code() == Code::kDeadlineExceeded && !ctx.Check("mount").ok()) {
    info = AtTheLimit(session, flags, request);
  }
  if (!info) return std::move(info).error();
  Report(io, flags, *info);
  return {};
}

// Until the mount is there; a signal or the caller's limit ends the wait.
Result<MountInfo> MountUnlessSignalled(Io& io, daemon::Service& service, const MountFlags& flags,
                                       const MountRequest& request, const sigset_t& signals) {
  constexpr timespec kLook{0, 50'000'000};
  const Context ctx = LimitOf(flags);
  MountProgress progress(io, ColumnsOf(io));
  DAVIT_TRY_ASSIGN(MountInfo info, service.Mount(request, Duration::zero()));
  while (info.state == "mounting") {
    if (flags.node.output != "json") progress.Show(info);
    if (!ctx.Check("mount").ok()) {
      return NotReadyInTime(info, request.ready, flags.timeout,
                            "nothing is left behind; give it more time with --timeout, or mount "
                            "without --foreground: then it goes on");
    }
    if (::sigtimedwait(&signals, nullptr, &kLook) >= 0) {
      return Error(Code::kCancelled, "stopped by a signal before " + request.source +
                                         " was mounted; nothing is left behind");
    }
    DAVIT_TRY_ASSIGN(info, service.Get(request.id));
  }
  if (info.state == "mounted") return info;
  return Error(daemon::api::CodeFromName(info.error_code).value_or(Code::kInternal), info.error);
}

Status ServeHere(Io& io, daemon::Service& service, const MountFlags& flags,
                 const MountRequest& request, const sigset_t& signals) {
  DAVIT_TRY_ASSIGN(const MountInfo info,
                   MountUnlessSignalled(io, service, flags, request, signals));
  Report(io, flags, info);
  io.out.flush();
  constexpr timespec kSecond{1, 0};
  while (::sigtimedwait(&signals, nullptr, &kSecond) < 0) {
    const auto now = service.Get(request.id);
    if (!now || now->state == "failed") break;
  }
  return {};
}

// The daemon runs in this process, until a signal or until the mount is taken away.
Status MountHere(Io& io, NodeSession& session, const MountFlags& flags) {
  DAVIT_TRY_ASSIGN(const MountRequest request, RequestOf(flags));
  if (session.DaemonRuns()) {
    return Error(Code::kFailedPrecondition,
                 fmt::format("a daemon runs already at {}", session.config().api.socket))
        .WithHint(
            "leave --foreground away, or give --config with another api.socket and "
            "node.state_dir");
  }
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  DAVIT_TRY(ConfigureLog(session.config().log));
  DAVIT_TRY_ASSIGN(const std::unique_ptr<daemon::Daemon> here,
                   daemon::Daemon::Start({.config = session.config(), .version = DAVIT_VERSION}));
  const Status served = ServeHere(io, here->service(), flags, request, signals);
  here->Stop(daemon::OnStop::kForget);
  return served;
}

void RegisterMount(CLI::App& app, Run& chosen) {
  auto flags = std::make_shared<MountFlags>();
  CLI::App* command = app.add_subcommand("mount", "Mount an image at a directory");
  command->add_option("image", flags->image, "Reference, or oci:DIR:TAG")->required();
  command->add_option("directory", flags->directory, "An existing directory")->required();
  command->add_option("--id", flags->id, "Name of the mount; default: made from the directory");
  command->add_option("--platform", flags->platform, "os/architecture[/variant]");
  command->add_option("--ready", flags->ready, "Return when mounted, prefetched or complete")
      ->check(CLI::IsMember({"mounted", "prefetched", "complete"}))
      ->capture_default_str();
  command
      ->add_option("--timeout", flags->timeout,
                   "Wait no longer (90s, 10m) for --ready; the mount goes on. Default: no limit")
      ->check(CheckTimeout);
  command->add_flag("--no-fill", flags->no_fill, "Fetch only what is read");
  command->add_flag("--plain-http", flags->plain_http, "Speak to the registry without TLS");
  command->add_option("--auth-file", flags->auth_file,
                      "Docker config.json with credentials for this image; default: "
                      "$IMAGE_PULL_AUTH, else the daemon's own");
  command->add_flag("--foreground", flags->foreground,
                    "Serve from this process until SIGINT or umount");
  AddNodeOptions(*command, flags->node);
  command->callback([flags, &chosen] {
    chosen = [flags](Io& io) {
      return WithSession(io, flags->node, [&](NodeSession& session) {
        return flags->foreground ? MountHere(io, session, *flags)
                                 : MountByDaemon(io, session, *flags);
      });
    };
  });
}

void RegisterUmount(CLI::App& app, Run& chosen) {
  struct Flags {
    NodeOptions node;
    std::string target;
    bool force = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("umount", "Unmount an image");
  command->add_option("mount", flags->target, "Id or mount point")->required();
  command->add_flag("--force", flags->force,
                    "Detach it although files are open; programs that use them get errors");
  AddNodeOptions(*command, flags->node);
  command->callback([flags, &chosen] {
    chosen = [flags](Io& io) {
      return WithSession(io, flags->node, [&](NodeSession& session) -> Status {
        DAVIT_TRY_ASSIGN(const MountInfo info, FindMount(session, flags->target));
        if (!flags->force) return session.client().Unmount(Context{}, info.id);
        DAVIT_TRY_ASSIGN([[maybe_unused]] const std::string reply,
                         session.client().Call(Context{}, "DELETE",
                                               "/api/v1/mounts/" + info.id + "?force=true", ""));
        return {};
      });
    };
  });
}

}  // namespace

void RegisterMountCommands(CLI::App& app, Run& chosen) {
  RegisterMount(app, chosen);
  RegisterUmount(app, chosen);
}

}  // namespace davit::cli
