// davit check, davit unpack: every byte of an image, verified.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cli/davit_app.h"
#include "cli/image_access.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "common/base/fd.h"
#include "common/json/json.h"
#include "rafs/convert/convert.h"

namespace davit::cli {
namespace {

struct CheckFlags {
  std::string image, bootstrap, blob_dir, source, output, format = "text";
  bool quiet = false;
  ImageAccessOptions access;
};

rafs::StepProgress StepBars(Progress& bars) {
  return [&bars, last = std::string()](std::string_view step, std::uint64_t done,
                                       std::uint64_t total) mutable {
    if (step != last) bars.Remove(last);
    last = step;
    bars.Update(step, done, total);
  };
}

Result<rafs::CheckReport> Check(const CheckFlags& flags, Io& io) {
  Progress bars(io, flags.quiet || flags.format == "json");
  const rafs::StepProgress progress = StepBars(bars);
  ImageAccess access(flags.access);
  const SignalContext signals;
  DAVIT_TRY_ASSIGN(const OpenedImage image,
                   OpenImage(signals.ctx(), access, flags.image, flags.bootstrap, flags.blob_dir));
  if (!flags.bootstrap.empty() && flags.blob_dir.empty() && !image.metadata->blobs().empty()) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the blobs of {} are needed to check it", flags.bootstrap))
        .WithHint("name the directory that holds them with --blob-dir");
  }
  DAVIT_TRY_ASSIGN(rafs::CheckReport report,
                   rafs::CheckBootstrap(signals.ctx(), *image.metadata, image.open_blob, progress));
  if (flags.source.empty()) return report;
  DAVIT_TRY_ASSIGN(const registry::Reference reference, registry::Reference::Parse(flags.source));
  DAVIT_TRY_ASSIGN(const auto source, access.Open(reference));
  DAVIT_TRY_ASSIGN(const oci::Platform platform, access.platform());
  DAVIT_TRY(rafs::CompareWithSource(signals.ctx(), *image.metadata, *source,
                                    reference.TagOrDigest(), platform, report, progress));
  return report;
}

int RunCheck(const CheckFlags& flags, Io& io) {
  const auto report = Check(flags, io);
  if (!report.ok()) return Fail(io, report.error());
  if (flags.format == "json") {
    io.out << json::Dump({{"ok", report->problems.empty()},
                          {"inodes", report->inodes},
                          {"files", report->files},
                          {"chunks", report->chunks},
                          {"unused_chunks", report->unused_chunks},
                          {"bytes", report->bytes},
                          {"problems", report->problems}})
           << "\n";
  } else {
    for (const std::string& problem : report->problems) io.out << Printable(problem) << "\n";
    const std::string unused = report->unused_chunks == 0
                                   ? std::string()
                                   : fmt::format(" ({} of no file)", report->unused_chunks);
    io.out << fmt::format("{} inodes, {} files with {}, {} chunks{}: {}\n", report->inodes,
                          report->files, HumanBytes(report->bytes), report->chunks, unused,
                          report->problems.empty()
                              ? std::string("all well")
                              : fmt::format("{} problems", report->problems.size()));
  }
  return report->problems.empty() ? kExitOk : kExitFailure;
}

Status Unpack(const CheckFlags& flags, Io& io) {
  const bool json_result = flags.format == "json", to_stdout = flags.output == "-";
  if (json_result && to_stdout) {
    return Error(Code::kInvalidArgument,
                 "standard output cannot take both the archive and the result as json")
        .WithHint("name a file with -o, or leave --output json out");
  }
  Progress bars(io, flags.quiet || json_result);
  ImageAccess access(flags.access);
  const SignalContext signals;
  DAVIT_TRY_ASSIGN(const OpenedImage image,
                   OpenImage(signals.ctx(), access, flags.image, flags.bootstrap, flags.blob_dir));
  UniqueFd fd;
  if (to_stdout) {
    fd.reset(::dup(STDOUT_FILENO));
  } else {
    DAVIT_TRY_ASSIGN(fd, OpenFile(flags.output, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  }
  std::uint64_t bytes = 0;
  DAVIT_TRY(rafs::UnpackImage(
      signals.ctx(), *image.metadata, image.open_blob,
      [&](Bytes data) {
        bytes += data.size();
        return WriteFull(fd.get(), data);
      },
      StepBars(bars)));
  bars.Finish();
  if (json_result) {
    io.out << json::Dump({{"file", flags.output}, {"bytes", bytes}}) << "\n";
  } else if (!to_stdout) {
    io.out << flags.output << ": " << HumanBytes(bytes) << "\n";
  }
  return {};
}

void AddImageOptions(CLI::App& command, CheckFlags& flags) {
  command.add_option("image", flags.image,
                     "RAFS image: host/name:tag, host/name@digest or oci:/path:tag");
  command.add_option("--bootstrap", flags.bootstrap, "A local bootstrap file instead of an image");
  command.add_option("--blob-dir", flags.blob_dir,
                     "Where the blobs of --bootstrap are, named by id");
  command.add_flag("--quiet", flags.quiet, "Neither bars nor lines about progress");
  AddImageAccessOptions(command, flags.access, true);
}

}  // namespace

void RegisterCheck(CLI::App& app, Run& chosen) {
  auto check = std::make_shared<CheckFlags>();
  CLI::App* command =
      app.add_subcommand("check", "Verify the structure of an image and the digest of every chunk");
  AddImageOptions(*command, *check);
  command->add_option("--source", check->source, "Compare with this OCI image too");
  AddOutputFormat(*command, check->format);
  command->callback(
      [check, &chosen] { chosen = [check](Io& io) { return RunCheck(*check, io); }; });

  auto unpack = std::make_shared<CheckFlags>();
  CLI::App* unpacking =
      app.add_subcommand("unpack", "Write the content of an image as a tar archive");
  AddImageOptions(*unpacking, *unpack);
  unpacking->add_option("-o,--to", unpack->output, "File to write; - is standard output")
      ->required();
  AddOutputFormat(*unpacking, unpack->format);
  unpacking->callback([unpack, &chosen] {
    chosen = [unpack](Io& io) {
      const Status status = Unpack(*unpack, io);
      return status.ok() ? kExitOk : Fail(io, status.error());
    };
  });
}

}  // namespace davit::cli
