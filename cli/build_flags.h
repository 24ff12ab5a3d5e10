#pragma once
// Options of commands that build images, and their translation to BuildOptions.

#include <string>
#include <vector>

#include "cli/command.h"
#include "rafs/builder/builder.h"

namespace davit::cli {

struct BuildFlags {
  std::string compressor = "zstd", digester = "blake3", chunk_size = "1MiB", batch_size = "0";
  int level = 0, threads = 0;
  std::string prefetch_file;
  std::vector<std::string> prefetch;
};
void AddBuildFlags(CLI::App& command, BuildFlags& flags);
Result<rafs::BuildOptions> MakeBuildOptions(const BuildFlags& flags);
/// "65536", "64KiB", "1MiB", "0x100000".
Result<std::uint64_t> ParseBytes(const std::string& text);

}  // namespace davit::cli
