#pragma once
// Between the two files that include fuse_lowlevel.h (session.cc, session_ops.cc); internal to
// rafs/fuse.

#include <memory>
#include <vector>

#include "rafs/fuse/slow_reads.h"

struct fuse_lowlevel_ops;  // NOLINT(readability-identifier-naming): libfuse's

namespace davit::rafs {

inline constexpr std::uint32_t kMaxRead = 1U << 20;

/// The handlers; their user data is the session's Core.
const fuse_lowlevel_ops& SessionOps();
/// Answers queued reads that nobody will wait for: EINTR to readers that gave up, EIO to others.
void AnswerCancelledReads(std::vector<std::unique_ptr<SlowRead>> reads);

}  // namespace davit::rafs
