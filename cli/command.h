#pragma once
// How the sub-commands of a binary plug into its main(): each registers itself with the option
// parser and, when it was the one named, leaves a function to run. No globals, so that tests run
// whole command lines in-process.

#include <functional>
#include <iosfwd>

namespace CLI {
class App;
}

namespace davit::cli {

/// Where a command talks to its user.
struct Io {
  std::ostream& out;
  std::ostream& err;
  bool terminal = false;  // `err` is a terminal: progress bars, colours
};

/// Exit codes of all binaries.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;  // what was asked for did not work
inline constexpr int kExitUsage = 2;    // the command line or configuration is wrong

/// A parsed command, ready to run; returns the exit code.
using Run = std::function<int(Io&)>;

/// `davit mount umount ps info prefetch cache`. `chosen` is set while `app` parses and must
/// outlive it.
void RegisterNodeCommands(CLI::App& app, Run& chosen);

}  // namespace davit::cli
