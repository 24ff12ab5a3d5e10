#include "cli/davit_csi_app.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <utility>

#include "cli/output.h"
#include "cli/parse.h"
#include "common/base/log.h"
#include "common/config/config.h"
#include "common/http/client.h"
#include "csi/core/daemon_process.h"
#include "csi/core/node_ops.h"
#include "csi/core/reconciler.h"
#include "csi/rpc/server.h"
#include "daemon/client/client.h"

namespace davit::cli {
namespace {

struct Flags {
  std::string config_file, endpoint, node_id, state_dir, daemon_socket, daemon_program, driver_name;
  std::string log_level, log_format;
  bool embedded = false;
  bool check_config = false;
  bool allow_oci_layouts = false;
};

void Declare(CLI::App& app, Flags& flags) {
  app.name("davit-csi");
  app.set_version_flag("--version", std::string("davit-csi ") + DAVIT_VERSION);
  app.add_option("--config", flags.config_file, "Configuration file (TOML or JSON)");
  app.add_flag("--check-config", flags.check_config,
               "Check the configuration, print what is in force, and end");
  app.add_option("--endpoint", flags.endpoint, "CSI socket to serve, unix:///path (csi.endpoint)");
  app.add_option("--driver-name", flags.driver_name, "Name of the driver (csi.driver_name)");
  app.add_option("--node-id", flags.node_id, "The node's name in Kubernetes (node.id)");
  app.add_option("--state-dir", flags.state_dir,
                 "Directory for what must survive a restart (node.state_dir)");
  app.add_option("--daemon-socket", flags.daemon_socket,
                 "Socket of davitd (api.socket); without --embedded-daemon, of one that runs");
  app.add_flag("--embedded-daemon", flags.embedded,
               "Start davitd as a child process, and stop it at the end");
  app.add_option("--daemon-program", flags.daemon_program,
                 "davitd to start; default: beside this program");
  app.add_flag("--allow-oci-layouts", flags.allow_oci_layouts,
               "Let volumes name OCI layouts on this node's disk (oci:/path:tag)");
  app.add_option("--log-level", flags.log_level,
                 "trace, debug, info, warn, error, off (log.level)");
  app.add_option("--log-format", flags.log_format, "text or json (log.format)");
}

Result<config::Loaded> LoadConfig(const Flags& flags) {
  const bool root = ::geteuid() == 0;
  config::Sources sources;
  sources.root = root;
  sources.file =
      flags.config_file.empty() ? config::DefaultFile(root, sources.env) : flags.config_file;
  const auto set = [&](const char* key, const std::string& value) {
    if (!value.empty()) sources.overrides.emplace_back(key, value);
  };
  set("csi.endpoint", flags.endpoint);
  set("csi.driver_name", flags.driver_name);
  set("node.id", flags.node_id);
  set("node.state_dir", flags.state_dir);
  set("api.socket", flags.daemon_socket);
  set("log.level", flags.log_level);
  set("log.format", flags.log_format);
  // Who names a socket means a daemon that listens there, unless said otherwise.
  if (flags.embedded) {
    set("csi.embedded_daemon", "true");
  } else if (!flags.daemon_socket.empty()) {
    set("csi.embedded_daemon", "false");
  }
  DAVIT_TRY_ASSIGN(config::Loaded loaded, config::Load(sources));
  Config& config = loaded.config;
  const Config defaults = config::DefaultConfig(root, sources.env);
  // A second driver with its own state directory gets its own daemon, not the machine's.
  if (config.csi.embedded_daemon && config.api.socket == defaults.api.socket &&
      config.node.state_dir != defaults.node.state_dir) {
    config.api.socket = config.node.state_dir + "/davitd.sock";
  }
  return loaded;
}

Status ConfigureLog(const Config& config) {
  DAVIT_TRY_ASSIGN(const log::Level level, log::ParseLevel(config.log.level));
  return log::Configure({.level = level,
                         .json = config.log.format == "json",
                         .file = config.log.file,
                         .rotate_bytes = config.log.rotate_bytes,
                         .keep_files = static_cast<int>(config.log.keep_files)});
}

Result<std::string> NodeId(const Config& config) {
  if (!config.node.id.empty()) return config.node.id;
  std::string name(256, '\0');
  if (::gethostname(name.data(), name.size() - 1) != 0) {
    return Error::FromErrno(errno, "the host's name");
  }
  name.resize(name.find('\0'));
  return name;
}

std::string DaemonProgram(const Flags& flags) {
  if (!flags.daemon_program.empty()) return flags.daemon_program;
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? "davitd" : (self.parent_path() / "davitd").string();
}

// Two processes that write and rotate one file would lose each other's lines: "x.log" and
// "x.davitd.log".
std::string DaemonLogFile(const std::string& own) {
  if (own.empty()) return own;
  std::filesystem::path path(own);
  const std::string extension = path.extension().string();
  path.replace_extension();
  return path.string() + ".davitd" + extension;
}

// The child reads the same file, and gets by its environment what was said on this command line.
csi::DaemonProcess::Options DaemonOptions(const Flags& flags, const config::Loaded& loaded) {
  const Config& config = loaded.config;
  csi::DaemonProcess::Options options;
  options.program = DaemonProgram(flags);
  options.pid_file = config.node.state_dir + "/csi/davitd.pid";
  const auto set = [&](const char* key, const std::string& value) {
    options.env.emplace_back(config::EnvName(key), value);
  };
  if (!loaded.file.empty()) options.env.emplace_back("DAVIT_CONFIG", loaded.file);
  set("api.socket", config.api.socket);
  set("node.state_dir", config.node.state_dir);
  set("log.level", config.log.level);
  set("log.format", config.log.format);
  if (!config.log.file.empty()) set("log.file", DaemonLogFile(config.log.file));
  return options;
}

int WaitForSignal(const sigset_t& signals) {
  int signal = 0;
  while (::sigwait(&signals, &signal) != 0) {
  }
  return signal;
}

// Everything that runs, in the order in which it is built; taken down the other way round.
Status Serve(const Flags& flags, const config::Loaded& loaded, const sigset_t& signals) {
  const Config& config = loaded.config;
  const auto http = http::Client::Create({.user_agent = std::string("davit-csi/") + DAVIT_VERSION});
  const auto daemon = daemon::Client::Create(config.api.socket, *http);
  csi::NodeOps::Options node_options;
  DAVIT_TRY_ASSIGN(node_options.node_id, NodeId(config));
  node_options.state_dir = config.node.state_dir + "/csi";
  node_options.max_volumes = static_cast<std::uint64_t>(config.csi.max_volumes);
  node_options.allow_oci_layouts = flags.allow_oci_layouts;
  DAVIT_TRY_ASSIGN(const auto node, csi::NodeOps::Create(node_options, *daemon));

  // The socket opens first: kubelet must reach the driver while it recovers.
  std::atomic<csi::Reconciler*> reconciler = nullptr;
  const auto ready = [&reconciler] {
    const csi::Reconciler* current = reconciler;
    return current != nullptr && current->ready();
  };
  DAVIT_TRY_ASSIGN(auto server, csi::Server::Start({.endpoint = config.csi.endpoint,
                                                    .driver_name = config.csi.driver_name,
                                                    .vendor_version = DAVIT_VERSION},
                                                   *node, ready));
  csi::Reconciler recovery({}, *node);
  reconciler = &recovery;
  std::unique_ptr<csi::DaemonProcess> child;
  if (config.csi.embedded_daemon) {
    auto options = DaemonOptions(flags, loaded);
    options.on_started = [&recovery] { recovery.Trigger(); };
    auto started = csi::DaemonProcess::Start(std::move(options), *daemon);
    if (!started.ok()) {
      reconciler = nullptr;
      server.reset();
      return std::move(started).error();
    }
    child = *std::move(started);
  }
  log::Info(
      "davit-csi runs",
      {{"version", DAVIT_VERSION}, {"node", node_options.node_id}, {"daemon", config.api.socket}});
  const int signal = WaitForSignal(signals);
  log::Info("ending", {{"signal", signal}});
  // No call may see a recovery or a daemon that is being taken down.
  reconciler = nullptr;
  server.reset();
  return {};
}

int Fail(Io& io, const Error& error, int code) {
  PrintError(io, "davit-csi", error);
  return code;
}

}  // namespace

int DavitCsiMain(const std::vector<std::string>& args, Io& io) {
  Flags flags;
  CLI::App app{"CSI driver for container images and models: Identity and Node services"};
  Declare(app, flags);
  if (const auto code = ParseArguments(app, args, io)) return *code;
  auto loaded = LoadConfig(flags);
  if (!loaded.ok()) return Fail(io, loaded.error(), kExitUsage);
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
  Status status = ConfigureLog(loaded->config);
  if (!status.ok()) return Fail(io, status.error(), kExitUsage);
  for (const std::string& warning : loaded->warnings) log::Warn(warning);
  status = Serve(flags, *loaded, signals);
  if (!status.ok()) return Fail(io, status.error(), kExitFailure);
  log::Info("ended");
  return kExitOk;
}

}  // namespace davit::cli
