// davit demo: the guided tour, a script that is installed beside the binaries.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <ostream>

#include "cli/davit_app.h"
#include "cli/image_access.h"

namespace davit::cli {
namespace {

/// Installed: PREFIX/share/davit/demo; in a source tree: scripts/demo.
Result<std::string> FindScript() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return Error(Code::kInternal, "the path of this program cannot be read");
  const std::filesystem::path bin = self.parent_path();
  const std::array candidates{bin / "../share/davit/demo", bin / "../../../scripts/demo"};
  for (const std::filesystem::path& candidate : candidates) {
    if (std::filesystem::exists(candidate, error)) return candidate.string();
  }
  return Error(Code::kNotFound, "the demo script is not installed")
      .WithHint("run `make demo` in the source tree");
}

int RunDemo(bool keep, Io& io) {
  const auto script = FindScript();
  if (!script.ok()) return Fail(io, script.error());
  // The tour is of the binaries beside this one, not of others that the script might find.
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) ::setenv("DAVIT_BIN_DIR", self.parent_path().c_str(), 0);
  ::execl(script->c_str(), script->c_str(), keep ? "--keep" : nullptr, nullptr);
  return Fail(io, Error::FromErrno(errno, "run " + *script));
}

}  // namespace

void RegisterDemo(CLI::App& app, Run& chosen) {
  auto keep = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("demo", "Show the main job end to end, without a cluster");
  command->add_flag("--keep", *keep, "Leave the volume mounted");
  command->callback([keep, &chosen] { chosen = [keep](Io& io) { return RunDemo(*keep, io); }; });
}

}  // namespace davit::cli
