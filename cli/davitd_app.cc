#include "cli/davitd_app.h"

#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <utility>

#include "cli/output.h"
#include "cli/parse.h"
#include "common/base/log.h"
#include "common/config/config.h"
#include "common/config/units.h"
#include "daemon/core/daemon.h"

namespace davit::cli {
namespace {

struct Flags {
  std::string config_file, state_dir, socket, cache_dir, on_stop;
  std::string log_level, log_format, log_file;
  std::vector<std::string> set;
  std::string idle_exit;
  bool check_config = false;
  bool reference = false;
};

void Declare(CLI::App& app, Flags& flags) {
  app.name("davitd");
  app.set_version_flag("--version", std::string("davitd ") + DAVIT_VERSION);
  app.add_option("--config", flags.config_file, "Configuration file (TOML or JSON)");
  app.add_flag("--check-config", flags.check_config,
               "Check the configuration, print what is in force, and end");
  app.add_flag("--config-reference", flags.reference,
               "Print the reference of all settings (docs/configuration.md), and end");
  app.add_option("--set", flags.set, "Set any key of the configuration: section.field=value")
      ->allow_extra_args(false);
  app.add_option("--state-dir", flags.state_dir,
                 "Directory for what must survive a restart (node.state_dir)");
  app.add_option("--cache-dir", flags.cache_dir, "Directory of the cache (cache.directory)");
  app.add_option("--socket", flags.socket, "Unix socket of the HTTP API (api.socket)");
  app.add_option("--on-stop", flags.on_stop,
                 "What SIGTERM does with mounts: unmount, keep or forget (node.on_stop)");
  app.add_option("--idle-exit", flags.idle_exit,
                 "End when nothing was mounted for this long, for example 30s; default: never");
  app.add_option("--log-level", flags.log_level,
                 "trace, debug, info, warn, error, off (log.level)");
  app.add_option("--log-format", flags.log_format, "text or json (log.format)");
  app.add_option("--log-file", flags.log_file, "File of the log, rotated (log.file)");
}

Result<config::Loaded> LoadConfig(const Flags& flags) {
  config::Sources sources;
  sources.root = ::geteuid() == 0;
  sources.file = flags.config_file.empty() ? config::DefaultFile(sources.root, sources.env)
                                           : flags.config_file;
  for (const std::string& pair : flags.set) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos) {
      return Error(Code::kInvalidArgument, "--set " + pair + ": \"=\" is missing")
          .WithHint("for example --set cache.budget_bytes=20GiB");
    }
    sources.overrides.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
  }
  const auto set = [&](const char* key, const std::string& value) {
    if (!value.empty()) sources.overrides.emplace_back(key, value);
  };
  set("node.state_dir", flags.state_dir);
  set("node.on_stop", flags.on_stop);
  set("cache.directory", flags.cache_dir);
  set("api.socket", flags.socket);
  set("log.level", flags.log_level);
  set("log.format", flags.log_format);
  set("log.file", flags.log_file);
  return config::Load(sources);
}

int Fail(Io& io, const Error& error, int code) {
  PrintError(io, "davitd", error);
  return code;
}

// Until a signal comes, or until nothing was mounted for `idle` (0: for ever); says why.
std::string WaitForEnd(daemon::Service& service, const sigset_t& signals,
                       std::chrono::milliseconds idle) {
  const timespec second{1, 0};
  TimePoint busy = Clock::Real().Now();
  while (true) {
    const int signal = ::sigtimedwait(&signals, nullptr, &second);
    if (signal > 0) return signal == SIGTERM ? "SIGTERM" : "SIGINT";
    if (idle.count() == 0) continue;
    if (!service.List().empty()) busy = Clock::Real().Now();
    if (Clock::Real().Now() - busy >= idle) return "idle";
  }
}

Status Serve(const Config& config, const sigset_t& signals, std::chrono::milliseconds idle) {
  DAVIT_TRY_ASSIGN(std::unique_ptr<daemon::Daemon> daemon,
                   daemon::Daemon::Start({.config = config, .version = DAVIT_VERSION}));
  const std::string reason = WaitForEnd(daemon->service(), signals, idle);
  log::Info("ending", {{"reason", reason}});
  // A second signal ends the process at once.
  ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  const daemon::OnStop how = daemon::ParseOnStop(config.node.on_stop);
  daemon->Stop(how);
  // Sessions that are kept still serve from their threads: nothing may be taken down below them.
  if (how == daemon::OnStop::kKeep) ::_exit(kExitOk);
  return {};
}

}  // namespace

Status ConfigureLog(const Config::Log& log) {
  DAVIT_TRY_ASSIGN(const log::Level level, log::ParseLevel(log.level));
  return log::Configure({.level = level,
                         .json = log.format == "json",
                         .file = log.file,
                         .rotate_bytes = log.rotate_bytes,
                         .keep_files = static_cast<int>(log.keep_files)});
}

int DavitdMain(const std::vector<std::string>& args, Io& io) {
  Flags flags;
  CLI::App app{"The node's data daemon: fetches, verifies, caches and mounts images"};
  Declare(app, flags);
  if (const auto code = ParseArguments(app, args, io)) return *code;
  if (flags.reference) {
    io.out << config::ReferenceMarkdown();
    return kExitOk;
  }
  const auto idle = ParseDuration(flags.idle_exit.empty() ? "0" : flags.idle_exit);
  if (!idle) return Fail(io, Error(idle.error()).WithContext("--idle-exit"), kExitUsage);
  const auto loaded = LoadConfig(flags);
  if (!loaded) return Fail(io, loaded.error(), kExitUsage);
  if (flags.check_config) {
    for (const std::string& warning : loaded->warnings) io.err << "warning: " << warning << "\n";
    io.out << config::ToJson(loaded->config) << "\n";
    return kExitOk;
  }
  // Blocked before any thread exists, so that all of them inherit it and only sigwait sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  if (const Status log = ConfigureLog(loaded->config.log); !log) {
    return Fail(io, log.error(), kExitUsage);
  }
  for (const std::string& warning : loaded->warnings) log::Warn(warning);
  if (const Status served = Serve(loaded->config, signals, *idle); !served) {
    return Fail(io, served.error(), kExitFailure);
  }
  return kExitOk;
}

}  // namespace davit::cli
