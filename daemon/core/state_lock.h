#pragma once
// One davitd per state directory.

#include <string>

#include "common/base/fd.h"

namespace davit::daemon {

/// Takes DIRECTORY/lock; it is held as long as the descriptor, and gone with the process however
/// that ends. kFailedPrecondition names the process that has it.
Result<UniqueFd> LockStateDirectory(const std::string& directory);

}  // namespace davit::daemon
