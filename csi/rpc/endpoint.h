#pragma once
// The unix socket that a CSI endpoint names.

#include <string>

#include "common/base/result.h"

namespace davit::csi {

/// The path in "unix:///p", "unix:/p" or "/p". kInvalidArgument for anything else and for a path
/// that does not fit into a socket address.
Result<std::string> SocketPathOf(const std::string& endpoint);

}  // namespace davit::csi
