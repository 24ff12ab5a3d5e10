#pragma once
// What every command that talks to the node's daemon needs: options, configuration, client.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "common/config/config.h"
#include "common/http/client.h"
#include "daemon/client/client.h"

namespace davit::cli {

struct NodeOptions {
  std::string config_file, socket;
  std::string output = "text";  // or json
};
void AddNodeOptions(CLI::App& command, NodeOptions& options);

/// The configuration in force and a client of the daemon at its socket.
class NodeSession {
 public:
  static Result<std::unique_ptr<NodeSession>> Open(const NodeOptions& options);
  const Config& config() const { return loaded_.config; }
  /// The file the configuration came from; may be empty.
  const std::string& config_file() const { return loaded_.file; }
  daemon::Client& client() { return *client_; }
  /// True when a daemon answers.
  bool DaemonRuns();

 private:
  explicit NodeSession(config::Loaded loaded);
  const config::Loaded loaded_;
  const std::unique_ptr<http::Client> http_;
  const std::unique_ptr<daemon::Client> client_;
};

/// Runs `work` with a session; prints its error. The exit code.
int WithSession(Io& io, const NodeOptions& options,
                const std::function<Status(NodeSession&)>& work);

/// A path made absolute and free of "//", "." and ".." by its text alone: the file system is not
/// asked, for a dead mount there could hang.
std::string AbsolutePath(const std::string& path);
/// The mount with this id, or else the one at this path; kNotFound otherwise.
Result<daemon::api::MountInfo> FindMount(NodeSession& session, const std::string& id_or_path);

/// All that is known about a mount, for people.
void PrintMount(Io& io, const daemon::api::MountInfo& info);
/// `davit stat` of a mount: the exit code, or nothing when `target` is to be taken for an image. A
/// path names a mount; a word does if the daemon has a mount of that id.
std::optional<int> StatMount(Io& io, const NodeOptions& options, const std::string& target);

/// Registered by RegisterNodeCommands().
void RegisterMountCommands(CLI::App& app, Run& chosen);

}  // namespace davit::cli
