#pragma once
// Sockets in the file system.

#include <string>

#include "common/base/result.h"

namespace davit {

/// Makes room for a server at `path`: removes the socket of one that is gone. kFailedPrecondition
/// when somebody serves it (its process id is in the text where the system knows it), or when it
/// is no socket.
Status RemoveStaleSocket(const std::string& path);

}  // namespace davit
