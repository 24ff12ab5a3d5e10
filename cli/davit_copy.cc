// davit copy: an image as it is, from one repository or layout to another.

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cli/davit_app.h"
#include "cli/image_access.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "common/base/fd.h"
#include "common/json/json.h"
#include "rafs/convert/copy.h"

namespace davit::cli {
namespace {

struct CopyFlags {
  std::string source, target, format = "text";
  bool quiet = false;
  ImageAccessOptions access;
};

Result<oci::Descriptor> Copy(const CopyFlags& flags, Io& io) {
  DAVIT_TRY_ASSIGN(const registry::Reference from, registry::Reference::Parse(flags.source));
  DAVIT_TRY_ASSIGN(const registry::Reference to, registry::Reference::Parse(flags.target));
  ImageAccess access(flags.access);
  DAVIT_TRY_ASSIGN(const auto source, access.Open(from));
  DAVIT_TRY_ASSIGN(const auto target, access.Open(to));
  DAVIT_TRY_ASSIGN(const TempDir work, TempDir::Create("davit-copy"));
  const SignalContext signals;
  Progress bars(io, flags.quiet || flags.format == "json");
  return rafs::CopyImage(signals.ctx(), *source, from.TagOrDigest(), *target, to.TagOrDigest(),
                         work.path(), ConvertProgress(bars));
}

}  // namespace

void RegisterCopy(CLI::App& app, Run& chosen) {
  auto flags = std::make_shared<CopyFlags>();
  CLI::App* command = app.add_subcommand("copy", "Copy an image, every platform of it, as it is");
  command->add_option("source", flags->source, "Image to read")->required();
  command->add_option("target", flags->target, "Image to write")->required();
  AddOutputFormat(*command, flags->format);
  command->add_flag("--quiet", flags->quiet, "Neither bars nor lines about progress");
  AddImageAccessOptions(*command, flags->access, false);
  command->callback([flags, &chosen] {
    chosen = [flags](Io& io) {
      const auto copied = Copy(*flags, io);
      if (!copied.ok()) return Fail(io, copied.error());
      if (flags->format == "json") {
        io.out << json::Dump({{"source", flags->source},
                              {"target", flags->target},
                              {"digest", copied->digest},
                              {"media_type", copied->media_type},
                              {"bytes", copied->size}})
               << "\n";
        return kExitOk;
      }
      io.out << flags->target << " " << copied->digest << "\n";
      return kExitOk;
    };
  });
}

}  // namespace davit::cli
