#pragma once
// What somebody sees who waits for a mount.

#include <string>

#include "cli/command.h"
#include "common/base/result.h"
#include "daemon/api/types.h"

namespace davit::cli {

/// On a terminal one line that shows how much is local and what keeps the rest from coming; in a
/// log one line for each new reason. Not thread-safe.
class MountProgress {
 public:
  /// `columns` of the terminal; 0: a log.
  MountProgress(Io& io, std::size_t columns) : io_(io), columns_(columns) {}
  ~MountProgress() { Clear(); }
  MountProgress(const MountProgress&) = delete;
  MountProgress& operator=(const MountProgress&) = delete;

  void Show(const daemon::api::MountInfo& info);

 private:
  void Clear();

  Io& io_;
  const std::size_t columns_;
  std::string drawn_;  // on the terminal now
  std::string said_;   // code of the last reason in the log
};

/// 0 unless standard error is a terminal.
std::size_t ColumnsOf(const Io& io);

/// The end of a wait that the caller limited: what was reached, and why not more. `goes_on` says
/// what becomes of the mount.
Error NotReadyInTime(const daemon::api::MountInfo& info, daemon::api::Ready wanted,
                     const std::string& limit, const std::string& goes_on);

}  // namespace davit::cli
