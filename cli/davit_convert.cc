// davit convert: an OCI image in, a RAFS image out.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cli/build_flags.h"
#include "cli/davit_app.h"
#include "cli/image_access.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "common/json/json.h"
#include "rafs/convert/convert.h"

namespace davit::cli {
namespace {

struct ConvertFlags {
  std::string source, target;
  std::vector<std::string> platforms;
  std::string dedup = "layer", chunk_dict, output = "text";
  bool all_platforms = false, keep_source = false, referrer = false, docker = false, quiet = false;
  std::string work_dir;
  int transfers = 3;
  BuildFlags build;
  ImageAccessOptions access;
};

Result<rafs::ConvertOptions> MakeOptions(const ConvertFlags& flags) {
  rafs::ConvertOptions options;
  DAVIT_TRY_ASSIGN(options.build, MakeBuildOptions(flags.build));
  for (const std::string& text : flags.platforms) {
    DAVIT_TRY_ASSIGN(oci::Platform platform, oci::Platform::Parse(text));
    options.platforms.push_back(std::move(platform));
  }
  options.all_platforms = flags.all_platforms;
  options.keep_source_in_index = flags.keep_source;
  options.with_referrer = flags.referrer;
  options.docker_media_types = flags.docker;
  options.dedup_across_layers = flags.dedup == "image";
  options.work_dir = flags.work_dir;
  options.parallel_transfers = flags.transfers;
  return options;
}

std::string ReportJson(const ConvertFlags& flags, const rafs::ConvertReport& report,
                       double seconds) {
  return json::Dump({{"source", flags.source},
                     {"target", flags.target},
                     {"digest", report.target.digest},
                     {"media_type", report.target.media_type},
                     {"source_bytes", report.source_bytes},
                     {"content_bytes", report.content_bytes},
                     {"target_bytes", report.target_bytes},
                     {"pushed_bytes", report.pushed_bytes},
                     {"chunks", report.chunks},
                     {"inodes", report.inodes},
                     {"seconds", seconds}});
}

Result<rafs::ConvertReport> Convert(const ConvertFlags& flags, ConvertProgress& progress) {
  DAVIT_TRY_ASSIGN(const registry::Reference source, registry::Reference::Parse(flags.source));
  DAVIT_TRY_ASSIGN(const registry::Reference target, registry::Reference::Parse(flags.target));
  if (!target.digest.empty()) {
    return Error(Code::kInvalidArgument, "the target '" + flags.target + "' names a digest")
        .WithHint("name a tag: the digest is known only afterwards");
  }
  DAVIT_TRY_ASSIGN(rafs::ConvertOptions options, MakeOptions(flags));
  ImageAccess access(flags.access);
  DAVIT_TRY_ASSIGN(const auto from, access.Open(source));
  DAVIT_TRY_ASSIGN(const auto to, access.Open(target));
  std::shared_ptr<registry::Repository> dict;
  if (!flags.chunk_dict.empty()) {
    DAVIT_TRY_ASSIGN(const registry::Reference reference,
                     registry::Reference::Parse(flags.chunk_dict));
    DAVIT_TRY_ASSIGN(dict, access.Open(reference));
    options.chunk_dict = dict.get();
    options.chunk_dict_tag = reference.TagOrDigest();
  }
  const SignalContext signals;
  return rafs::ConvertImage(signals.ctx(), *from, source.TagOrDigest(), *to, target.tag, options,
                            [&](const rafs::ConvertEvent& event) { progress(event); });
}

int RunConvert(const ConvertFlags& flags, Io& io) {
  Progress bars(io, flags.quiet || flags.output == "json");
  ConvertProgress progress(bars);
  const auto start = std::chrono::steady_clock::now();
  const auto report = Convert(flags, progress);
  bars.Finish();
  if (!report.ok()) return Fail(io, report.error());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (flags.output == "json") {
    io.out << ReportJson(flags, *report, seconds) << "\n";
  } else {
    io.out << fmt::format(
        "{} -> {}\n  {}\n  {} read, {} of content in {} inodes, {} in the new image ({} sent), "
        "{:.1f} s\n",
        flags.source, flags.target, report->target.digest, HumanBytes(report->source_bytes),
        HumanBytes(report->content_bytes), report->inodes, HumanBytes(report->target_bytes),
        HumanBytes(report->pushed_bytes), seconds);
  }
  return kExitOk;
}

}  // namespace

void RegisterConvert(CLI::App& app, Run& chosen) {
  auto flags = std::make_shared<ConvertFlags>();
  CLI::App* command = app.add_subcommand("convert", "Convert an OCI image to a RAFS image");
  command
      ->add_option("source", flags->source,
                   "Image to read: host/name:tag, host/name@digest or oci:/path:tag")
      ->required();
  command->add_option("target", flags->target, "Image to write: host/name:tag or oci:/path:tag")
      ->required();
  command
      ->add_option("--platform", flags->platforms,
                   "Platform to convert (default: this machine's); may be repeated")
      ->allow_extra_args(false);
  command->add_flag("--all-platforms", flags->all_platforms,
                    "Convert every platform of the source");
  command->add_flag("--keep-source", flags->keep_source,
                    "List the ordinary manifests beside the RAFS ones in the target's index");
  command->add_flag("--with-referrer", flags->referrer,
                    "Let the target's manifest refer to the source (subject)");
  command->add_flag("--docker", flags->docker, "Docker media types instead of OCI ones");
  command
      ->add_option("--dedup", flags->dedup, "Store equal chunks once per layer or once per image")
      ->check(CLI::IsMember({"layer", "image"}))
      ->capture_default_str();
  command->add_option("--chunk-dict", flags->chunk_dict,
                      "RAFS image whose chunks need not be stored again");
  command->add_option("--work-dir", flags->work_dir,
                      "Directory for temporary files (default: $TMPDIR)");
  command->add_option("--transfers", flags->transfers, "Blobs pushed at the same time")
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  AddOutputFormat(*command, flags->output);
  command->add_flag("--quiet", flags->quiet, "Neither bars nor lines about progress");
  AddBuildFlags(*command, flags->build);
  AddImageAccessOptions(*command, flags->access, false);
  command->callback(
      [flags, &chosen] { chosen = [flags](Io& io) { return RunConvert(*flags, io); }; });
}

}  // namespace davit::cli
