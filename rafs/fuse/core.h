#pragma once
// What one session's threads share; internal to rafs/fuse.

#include <atomic>
#include <memory>
#include <string>

#include "common/base/fd.h"
#include "rafs/fs/filesystem.h"
#include "rafs/fuse/errors.h"
#include "rafs/fuse/inflight.h"
#include "rafs/fuse/inode_map.h"
#include "rafs/fuse/read_buffers.h"
#include "rafs/fuse/read_failures.h"
#include "rafs/fuse/session.h"
#include "rafs/fuse/slow_reads.h"
#include "rafs/fuse/workers.h"

namespace davit::rafs {

struct Core;

/// One connection to a kernel, by libfuse.
class Channel : public RequestSource {
 public:
  static Result<std::unique_ptr<Channel>> Create(Core& core, bool allow_other);
  /// Serves an open /dev/fuse whose mount exists.
  virtual Status ServeDevice(UniqueFd device) = 0;
  /// Serves a socket (SOCK_SEQPACKET) that speaks the same protocol.
  virtual Status ServeSocket(UniqueFd socket) = 0;
  /// Mounts with fusermount3, as users have to.
  virtual Status MountWithHelper(const std::string& path) = 0;
  /// True once the first request (INIT) has been answered.
  virtual bool WaitUntilInitialised(Duration timeout) = 0;
  /// Answers queued reads that nobody will wait for any more.
  virtual void AnswerCancelled(std::vector<std::unique_ptr<SlowRead>> reads) = 0;
};

struct Core {
  Core(std::shared_ptr<const Filesystem> f, const FuseOptions& o);

  const std::shared_ptr<const Filesystem> fs;
  const FuseOptions options;
  const InodeMap nodes;
  const std::shared_ptr<ReadBuffers> buffers;
  InflightTable inflight;
  SlowReads slow;
  ErrorLog errors;
  ReadFailures read_failures;
  unsigned capabilities = 0;  // of the kernel (FUSE_CAP_*); set by the first request, before others
  std::atomic<bool> init_answered{false};
  std::unique_ptr<Channel> channel;  // last: its end needs nothing of the others any more
};

}  // namespace davit::rafs
