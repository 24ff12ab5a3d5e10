#pragma once
// RAFS over FUSE. fuse_lowlevel.h is included by session.cc and session_ops.cc only.

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "rafs/fs/filesystem.h"
#include "rafs/fuse/read_buffers.h"

namespace davit::rafs {

struct FuseOptions {
  std::string mountpoint;  // must exist
  std::string fs_name = "davit";
  std::vector<log::Field> log_fields;  // mount, image, volume: on each line of its threads
  int threads = 4;  // at most at rest; more are started while requests wait for disk or network
  int max_threads = 64;
  bool allow_other = true;
  bool default_permissions = true;
  std::uint32_t read_ahead_bytes = 1U << 20;
  std::chrono::milliseconds read_timeout{0};  // 0: the scheduler's patience decides
  /// Reply buffers; one object for all sessions of a process, so that their memory does not grow
  /// with the number of mounts. Null: the session makes its own.
  std::shared_ptr<ReadBuffers> buffers;
};

/// One request that the kernel waits for.
struct InflightRequest {
  std::string operation;
  std::uint64_t inode = 0, offset = 0, size = 0;
  std::chrono::milliseconds age{0};
};

struct FuseStats {
  std::uint64_t lookups = 0, getattrs = 0, opens = 0, reads = 0, read_bytes = 0, readdirs = 0;
  std::uint64_t xattrs = 0, errors = 0;
  std::uint64_t waited_reads = 0;  // of the reads: those whose bytes had to be fetched first
};

/// A read that was answered with EIO.
struct ReadFailure {
  Error error;
  std::chrono::system_clock::time_point at;
  std::uint64_t inode = 0, offset = 0, size = 0;
};

/// A mounted file system, served by its own threads. Content is immutable, so the kernel may keep
/// entries, attributes, links and pages for ever. Inode numbers are the image's.
class FuseSession {
 public:
  /// Mounts and serves; returns when the mount is there.
  static Result<std::unique_ptr<FuseSession>> Start(std::shared_ptr<const Filesystem> fs,
                                                    const FuseOptions& options);
  /// Serves a connection that the caller has made: one end of a SOCK_SEQPACKET socket pair whose
  /// other end speaks the kernel's protocol. Nothing is mounted; ends with the connection.
  static Result<std::unique_ptr<FuseSession>> StartOnSocket(std::shared_ptr<const Filesystem> fs,
                                                            const FuseOptions& options,
                                                            UniqueFd socket);
  /// Unmounts (lazily when busy), answers what is in flight, joins the threads.
  virtual ~FuseSession() = default;
  /// Unmounts; kFailedPrecondition (EBUSY) while files are open, unless `lazy`.
  virtual Status Unmount(bool lazy) = 0;
  /// False when somebody else unmounted it or the connection was aborted.
  virtual bool alive() const = 0;
  virtual std::vector<InflightRequest> Inflight() const = 0;
  virtual FuseStats stats() const = 0;
  /// The latest failure that still stands: its bytes are not here yet, and nothing else that had to
  /// be fetched has come since (which says nothing about bytes that arrived damaged).
  virtual std::optional<ReadFailure> LastReadFailure() const = 0;
};

/// Detaches the mount at `path` with fusermount3, as users have to: their own mounts only.
Status DetachAsUser(const std::string& path);

}  // namespace davit::rafs
