#include "csi/core/node_service.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <utility>

namespace davit::csi {

NodeService::NodeService(Options options, daemon::Client& daemon, std::shared_ptr<Mounter> mounter,
                         std::unique_ptr<Journal> journal, UniqueFd lock)
    : options_(std::move(options)),
      daemon_(daemon),
      mounter_(std::move(mounter)),
      journal_(std::move(journal)),
      lock_(std::move(lock)),
      usage_(mounter_),
      images_(daemon_, mounter_, options_.state_dir + "/mounts") {}

bool IsDavitMount(const MountEntry& mount) {
  return mount.fs_type == "fuse.davit" || (mount.fs_type == "fuse" && mount.source == "davit");
}

Result<std::unique_ptr<NodeOps>> NodeOps::Create(const Options& options, daemon::Client& daemon) {
  return Create(options, daemon, Mounter::Create());
}

Result<std::unique_ptr<NodeOps>> NodeOps::Create(const Options& given, daemon::Client& daemon,
                                                 std::shared_ptr<Mounter> mounter) {
  Options options = given;
  if (options.node_id.empty() || options.node_id.size() > 256) {
    return Error(Code::kInvalidArgument, "the node id must have 1 to 256 bytes")
        .WithHint("set --node-id, e.g. to the Kubernetes node's name");
  }
  DAVIT_TRY_ASSIGN(options.state_dir, NormalPath(given.state_dir, "the state directory"));
  DAVIT_TRY(MakeDirectories(options.state_dir + "/mounts"));
  // Mount points are compared with mountinfo, which knows no symlinks.
  DAVIT_TRY_ASSIGN(const std::string mounts, mounter->RealPath(options.state_dir + "/mounts"));
  options.state_dir = mounts.substr(0, mounts.size() - std::string_view("/mounts").size());
  DAVIT_TRY_ASSIGN(UniqueFd lock, OpenFile(options.state_dir + "/lock", O_RDWR | O_CREAT));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    if (reason != EWOULDBLOCK) return Error::FromErrno(reason, "lock " + options.state_dir);
    return Error(Code::kFailedPrecondition,
                 "another davit-csi works with the state directory " + options.state_dir)
        .WithHint("stop it, or use another --state-dir");
  }
  DAVIT_TRY_ASSIGN(auto journal, Journal::Open(options.state_dir + "/journal"));
  return std::unique_ptr<NodeOps>(std::make_unique<NodeService>(
      options, daemon, std::move(mounter), std::move(journal), std::move(lock)));
}

}  // namespace davit::csi
