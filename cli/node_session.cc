#include "cli/node_session.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <ostream>
#include <utility>

namespace davit::cli {

void AddNodeOptions(CLI::App& command, NodeOptions& options) {
  command.add_option("--config", options.config_file, "Configuration file (TOML or JSON)");
  command.add_option("--socket", options.socket, "Socket of the daemon (api.socket)");
  command.add_option("--output", options.output, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
}

NodeSession::NodeSession(config::Loaded loaded)
    : loaded_(std::move(loaded)),
      http_(http::Client::Create({.user_agent = std::string("davit/") + DAVIT_VERSION})),
      client_(daemon::Client::Create(loaded_.config.api.socket, *http_)) {}

Result<std::unique_ptr<NodeSession>> NodeSession::Open(const NodeOptions& options) {
  config::Sources sources;
  sources.root = ::geteuid() == 0;
  sources.file = options.config_file.empty() ? config::DefaultFile(sources.root, sources.env)
                                             : options.config_file;
  if (!options.socket.empty()) sources.overrides.emplace_back("api.socket", options.socket);
  DAVIT_TRY_ASSIGN(config::Loaded loaded, config::Load(sources));
  return std::unique_ptr<NodeSession>(new NodeSession(std::move(loaded)));
}

bool NodeSession::DaemonRuns() {
  return client_->Info(Context{}.WithTimeout(std::chrono::seconds(5))).ok();
}

int WithSession(Io& io, const NodeOptions& options,
                const std::function<Status(NodeSession&)>& work) {
  auto session = NodeSession::Open(options);
  if (!session) {
    io.err << "davit: " << session.error().ToString() << "\n";
    return kExitUsage;
  }
  const Status status = work(**session);
  if (status) return kExitOk;
  io.err << "davit: " << status.error().ToString() << "\n";
  return status.error().code() == Code::kInvalidArgument ? kExitUsage : kExitFailure;
}

std::string AbsolutePath(const std::string& path) {
  std::error_code failed;
  std::filesystem::path full(path);
  if (full.is_relative()) full = std::filesystem::current_path(failed) / full;
  std::string out = full.lexically_normal().string();
  while (out.size() > 1 && out.ends_with('/')) out.pop_back();
  return out;
}

Result<daemon::api::MountInfo> FindMount(NodeSession& session, const std::string& id_or_path) {
  DAVIT_TRY_ASSIGN(const std::vector<daemon::api::MountInfo> mounts,
                   session.client().List(Context{}.WithTimeout(std::chrono::seconds(10))));
  for (const auto& mount : mounts) {
    if (mount.id == id_or_path) return mount;
  }
  const std::string path = AbsolutePath(id_or_path);
  for (const auto& mount : mounts) {
    if (AbsolutePath(mount.mountpoint) == path) return mount;
  }
  return Error(Code::kNotFound, "no mount has the id or mount point " + id_or_path)
      .WithHint("davit ps lists the mounts");
}

}  // namespace davit::cli
