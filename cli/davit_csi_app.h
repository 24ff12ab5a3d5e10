#pragma once
// The `davit-csi` program as a function.

#include <string>
#include <vector>

#include "cli/command.h"

namespace davit::cli {

/// `args` without the program's name; the exit code. Serves until SIGTERM or SIGINT. Blocks these
/// signals in the calling thread, so it must run before other threads are started.
int DavitCsiMain(const std::vector<std::string>& args, Io& io);

}  // namespace davit::cli
