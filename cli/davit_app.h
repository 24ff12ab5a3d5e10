#pragma once
// The `davit` command line as a function, so that tests run it in-process.

#include <string>
#include <vector>

#include "cli/command.h"

namespace davit::cli {

/// `args` without the program's name; the exit code.
int DavitMain(const std::vector<std::string>& args, Io& io);

/// Sub-commands that work on images (davit_convert.cc, davit_build.cc, ...). As for
/// RegisterNodeCommands, `chosen` must outlive `app`.
void RegisterConvert(CLI::App& app, Run& chosen);
void RegisterBuild(CLI::App& app, Run& chosen);
void RegisterCopy(CLI::App& app, Run& chosen);
void RegisterCheck(CLI::App& app, Run& chosen);
void RegisterDemo(CLI::App& app, Run& chosen);
void RegisterExtract(CLI::App& app, Run& chosen);
void RegisterInspect(CLI::App& app, Run& chosen);

}  // namespace davit::cli
