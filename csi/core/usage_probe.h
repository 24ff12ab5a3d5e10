#pragma once
// statvfs with a time limit: a mount whose daemon hangs does not answer, and nothing can make a
// thread that waits for it come back.

#include <map>
#include <memory>
#include <string>

#include "common/base/sync.h"
#include "csi/core/mounter.h"

namespace davit::csi {

/// Thread-safe. At most one thread waits per path, and it outlives this object when it hangs.
class UsageProbe {
 public:
  explicit UsageProbe(std::shared_ptr<Mounter> mounter);
  /// kDeadlineExceeded when there is no answer in time.
  Result<FsUsage> Ask(const Context& ctx, const std::string& path);

 private:
  struct State;
  const std::shared_ptr<State> state_;
};

}  // namespace davit::csi
