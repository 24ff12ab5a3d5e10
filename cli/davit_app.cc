#include "cli/davit_app.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "cli/output.h"
#include "cli/parse.h"
#include "common/base/log.h"

namespace davit::cli {

int DavitMain(const std::vector<std::string>& args, Io& io) {
  CLI::App app{"Container images and models as lazily loaded volumes"};
  app.name("davit");
  app.set_version_flag("--version", std::string("davit ") + DAVIT_VERSION);
  std::string level = "warn";
  app.add_option("--log-level", level, "trace, debug, info, warn, error or off")
      ->capture_default_str();
  app.require_subcommand(1);
  app.fallthrough();
  Run chosen;
  RegisterConvert(app, chosen);
  RegisterBuild(app, chosen);
  RegisterCopy(app, chosen);
  RegisterCheck(app, chosen);
  RegisterInspect(app, chosen);
  RegisterExtract(app, chosen);
  RegisterDemo(app, chosen);
  RegisterNodeCommands(app, chosen);
  if (const auto code = ParseArguments(app, args, io)) return *code;
  const auto parsed = log::ParseLevel(level);
  if (!parsed.ok()) {
    PrintError(io, "davit", Error(parsed.error()).WithContext("--log-level"));
    return kExitUsage;
  }
  log::SetLevel(*parsed);
  return chosen(io);
}

}  // namespace davit::cli
