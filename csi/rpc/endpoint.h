#pragma once
// The unix socket that a CSI endpoint names.

#include <string>

#include "common/base/result.h"

namespace davit::csi {

/// The path in "unix:///p", "unix:/p" or "/p". kInvalidArgument for anything else and for a path
/// that does not fit into a socket address.
Result<std::string> SocketPathOf(const std::string& endpoint);

/// Makes room for a socket at `path`: removes one that nobody serves. kFailedPrecondition when
/// somebody does, or when something else is there.
Status RemoveStaleSocket(const std::string& path);

}  // namespace davit::csi
