#pragma once
// From the words of a command line to options, with errors that say what is wrong, where, and what
// to do next.

#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"

namespace davit::cli {

/// Parses `args` (without the program's name). Nothing when the program is to go on; else its exit
/// code: --help and --version were served on `io.out`, or an error was printed. For an unknown
/// option or command the error names the nearest there is.
std::optional<int> ParseArguments(CLI::App& app, const std::vector<std::string>& args, Io& io);

}  // namespace davit::cli
