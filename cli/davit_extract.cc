// davit extract: the bootstrap that a layer blob holds.

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cli/davit_app.h"
#include "cli/image_access.h"
#include "cli/output.h"
#include "common/base/fd.h"
#include "common/json/json.h"
#include "rafs/convert/convert.h"

namespace davit::cli {
namespace {

struct ExtractFlags {
  std::string blob, output, format = "text";
};

Result<std::uint64_t> Extract(const ExtractFlags& flags) {
  DAVIT_TRY_ASSIGN(const auto source, rafs::FileBlobSource(flags.blob));
  DAVIT_TRY_ASSIGN(const std::string bootstrap, rafs::ReadInlineBootstrap({}, *source));
  DAVIT_TRY(WriteFileAtomic(flags.output, AsBytes(bootstrap), 0644));
  return bootstrap.size();
}

}  // namespace

void RegisterExtract(CLI::App& app, Run& chosen) {
  auto flags = std::make_shared<ExtractFlags>();
  CLI::App* command = app.add_subcommand("extract", "Write the bootstrap that a layer blob holds");
  command->add_option("blob", flags->blob, "Blob file with an inline bootstrap")->required();
  command
      ->add_option("-o,--to", flags->output,
                   "File to write; other commands want it named by the blob's id")
      ->required();
  AddOutputFormat(*command, flags->format);
  command->callback([flags, &chosen] {
    chosen = [flags](Io& io) {
      const auto bytes = Extract(*flags);
      if (!bytes.ok()) return Fail(io, bytes.error());
      if (flags->format == "json") {
        io.out << json::Dump({{"bootstrap", flags->output}, {"bytes", *bytes}}) << "\n";
        return kExitOk;
      }
      io.out << flags->output << ": " << HumanBytes(*bytes) << "\n";
      return kExitOk;
    };
  });
}

}  // namespace davit::cli
