#pragma once
// The `davitd` program as a function.

#include <string>
#include <vector>

#include "cli/command.h"
#include "common/config/config.h"

namespace davit::cli {

/// `args` without the program's name; the exit code. Serves until SIGTERM or SIGINT. Blocks these
/// signals in the calling thread, so it must run before other threads are started.
int DavitdMain(const std::vector<std::string>& args, Io& io);

/// Sets the process's log up as configured.
Status ConfigureLog(const Config::Log& log);

}  // namespace davit::cli
