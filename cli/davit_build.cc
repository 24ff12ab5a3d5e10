// davit build, davit merge: local bootstraps and blobs.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <charconv>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cli/build_flags.h"
#include "cli/davit_app.h"
#include "cli/image_access.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "common/base/fd.h"
#include "common/json/json.h"

namespace davit::cli {

void AddBuildFlags(CLI::App& command, BuildFlags& flags) {
  command.add_option("--compressor", flags.compressor, "zstd, lz4_block or none")
      ->capture_default_str();
  command.add_option("--level", flags.level, "Compression level, 1 to 19 (zstd; default 3)");
  command.add_option("--digester", flags.digester, "blake3 or sha256")->capture_default_str();
  command.add_option("--chunk-size", flags.chunk_size, "4KiB to 16MiB, a power of two")
      ->capture_default_str();
  command
      .add_option("--batch-size", flags.batch_size,
                  "Compress small files together up to this size; 0: off")
      ->capture_default_str();
  command
      .add_option("--prefetch", flags.prefetch,
                  "Path whose content is to be fetched first; may be repeated")
      ->allow_extra_args(false);
  command.add_option("--prefetch-file", flags.prefetch_file, "File with such paths, one a line");
  command.add_option("--threads", flags.threads, "Worker threads; 0: one per CPU")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
}

Result<std::uint64_t> ParseBytes(const std::string& text) {
  const int base = text.starts_with("0x") ? 16 : 10;
  const char* begin = text.data() + (base == 16 ? 2 : 0);
  const char* end = text.data() + text.size();
  std::uint64_t value = 0;
  const auto [rest, error] = std::from_chars(begin, end, value, base);
  const std::string_view unit(rest, static_cast<std::size_t>(end - rest));
  std::uint64_t factor = 0;
  if (unit.empty()) factor = 1;
  if (unit == "KiB" || unit == "K" || unit == "k") factor = 1ULL << 10;
  if (unit == "MiB" || unit == "M") factor = 1ULL << 20;
  if (unit == "GiB" || unit == "G") factor = 1ULL << 30;
  const auto product = CheckedMul<std::uint64_t>(value, factor);
  if (error != std::errc() || rest == begin || factor == 0 || !product) {
    return Error(Code::kInvalidArgument, fmt::format("'{}' is not a size", text))
        .WithHint("write bytes, or a number with KiB, MiB or GiB");
  }
  return *product;
}

Result<rafs::BuildOptions> MakeBuildOptions(const BuildFlags& flags) {
  rafs::BuildOptions options;
  DAVIT_TRY_ASSIGN(options.compressor, codec::ParseAlgorithm(flags.compressor));
  DAVIT_TRY_ASSIGN(options.digester, ParseDigestAlgorithm(flags.digester));
  DAVIT_TRY_ASSIGN(const std::uint64_t chunk, ParseBytes(flags.chunk_size));
  DAVIT_TRY_ASSIGN(const std::uint64_t batch, ParseBytes(flags.batch_size));
  if (chunk > UINT32_MAX || batch > UINT32_MAX) {
    return Error(Code::kInvalidArgument, "chunk and batch sizes are at most 16 MiB");
  }
  options.chunk_size = static_cast<std::uint32_t>(chunk);
  options.batch_size = static_cast<std::uint32_t>(batch);
  options.compression_level = flags.level;
  options.threads = flags.threads;
  options.prefetch = flags.prefetch;
  if (!flags.prefetch_file.empty()) {
    DAVIT_TRY_ASSIGN(const std::string text, ReadFile(flags.prefetch_file));
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      if (end > begin) options.prefetch.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  DAVIT_TRY(options.Validate());
  return options;
}

namespace {

struct LocalFlags {
  std::string source, output, chunk_dict, type = "auto", whiteouts = "oci", format = "text";
  std::vector<std::string> bootstraps;
  bool inline_bootstrap = false, no_toc = false, quiet = false;
  BuildFlags build;
};

/// A file or standard input as a stream.
class FdStream final : public codec::ByteStream {
 public:
  FdStream(UniqueFd fd, std::shared_ptr<std::atomic<std::uint64_t>> count)
      : fd_(std::move(fd)), count_(std::move(count)) {}
  Result<std::size_t> Read(MutableBytes out) override {
    while (true) {
      const ssize_t n = ::read(fd_.get(), out.data(), out.size());
      if (n >= 0) {
        *count_ += static_cast<std::uint64_t>(n);
        return static_cast<std::size_t>(n);
      }
      if (errno != EINTR) return Error::FromErrno(errno, "read the archive");
    }
  }

 private:
  UniqueFd fd_;
  std::shared_ptr<std::atomic<std::uint64_t>> count_;  // decoders read on their own threads
};

Result<rafs::Tree> BuildSource(const Context& ctx, const LocalFlags& flags,
                               const rafs::BuildOptions& options, rafs::BlobSet& blobs,
                               rafs::ChunkDict* dict, Progress& bars) {
  bool directory = flags.type == "directory";
  if (flags.type == "auto" && flags.source != "-") {
    struct stat st{};
    if (::stat(flags.source.c_str(), &st) != 0)
      return Error::FromErrno(errno, "stat " + flags.source);
    directory = S_ISDIR(st.st_mode);
  }
  if (directory) {
    return rafs::BuildDirectory(ctx, flags.source, options, flags.output, blobs, dict,
                                [&](std::uint64_t bytes) { bars.Update("build", bytes, 0); });
  }
  UniqueFd fd;
  std::uint64_t total = 0;
  if (flags.source == "-") {
    fd.reset(::dup(STDIN_FILENO));
  } else {
    DAVIT_TRY_ASSIGN(fd, OpenFile(flags.source, O_RDONLY));
    struct stat st{};
    if (::fstat(fd.get(), &st) == 0) total = static_cast<std::uint64_t>(st.st_size);
  }
  auto read = std::make_shared<std::atomic<std::uint64_t>>(0);
  DAVIT_TRY_ASSIGN(auto tar,
                   codec::MakeDetectingDecoder(std::make_unique<FdStream>(std::move(fd), read)));
  return rafs::BuildTar(ctx, std::move(tar), 0, options, flags.output, blobs, dict,
                        [&](std::uint64_t) { bars.Update("build", *read, total); });
}

/// Writes the bootstrap, gives blobs their names, prints what there is.
Status WriteResult(const LocalFlags& flags, const rafs::Tree& tree, const rafs::BlobSet& blobs,
                   const rafs::Bootstrap& bootstrap, const std::string& path, Io& io) {
  DAVIT_TRY(WriteFileAtomic(path, AsBytes(bootstrap.bytes), 0644));
  nlohmann::json list = nlohmann::json::array();
  for (std::uint32_t position : bootstrap.used_blobs) {
    const rafs::BuiltBlob& blob = blobs.blobs[position];
    if (!blob.path.empty()) {
      const std::string name = path.substr(0, path.find_last_of('/') + 1) + blob.id.value;
      if (blob.path != name && ::rename(blob.path.c_str(), name.c_str()) != 0) {
        return Error::FromErrno(errno, "rename " + blob.path + " to " + name);
      }
    }
    list.push_back(
        {{"id", blob.id.value}, {"bytes", blob.file_size}, {"chunks", blob.chunks.size()}});
  }
  if (flags.format == "json") {
    io.out << json::Dump({{"bootstrap", path},
                          {"bytes", bootstrap.bytes.size()},
                          {"inodes", tree.CountInodes()},
                          {"blobs", list}})
           << "\n";
    return {};
  }
  io.out << fmt::format("{}: {}, {} inodes\n", path, HumanBytes(bootstrap.bytes.size()),
                        tree.CountInodes());
  for (const auto& blob : list) {
    io.out << fmt::format("  blob {} ({}, {} chunks)\n", blob["id"].get<std::string>(),
                          HumanBytes(blob["bytes"].get<std::uint64_t>()),
                          blob["chunks"].get<std::uint64_t>());
  }
  return {};
}

Status Build(const LocalFlags& flags, Io& io) {
  DAVIT_TRY_ASSIGN(rafs::BuildOptions options, MakeBuildOptions(flags.build));
  options.inline_bootstrap = flags.inline_bootstrap;
  options.blob_toc = !flags.no_toc;
  if (flags.whiteouts == "overlay") options.whiteouts = rafs::BuildOptions::Whiteouts::kOverlay;
  if (flags.whiteouts == "none") options.whiteouts = rafs::BuildOptions::Whiteouts::kNone;
  DAVIT_TRY(MakeDirectories(flags.output, 0755));
  const SignalContext signals;
  rafs::BlobSet blobs;
  rafs::ChunkDict dict;
  const bool with_dict = !flags.chunk_dict.empty();
  if (with_dict) {
    DAVIT_TRY_ASSIGN(const auto metadata, rafs::Metadata::OpenFile(flags.chunk_dict));
    if (const Status added = dict.AddImage(*metadata, options, blobs); !added.ok()) {
      return Error(added.error()).WithContext("chunk dictionary " + flags.chunk_dict);
    }
  }
  Progress bars(io, flags.quiet || flags.format == "json");
  auto built = BuildSource(signals.ctx(), flags, options, blobs, with_dict ? &dict : nullptr, bars);
  bars.Finish();
  if (!built.ok()) {
    Error error = std::move(built).error();
    if (!error.message().contains(flags.source)) error = std::move(error).WithContext(flags.source);
    // What is wrong is the source, not the words of the caller.
    if (error.code() == Code::kInvalidArgument) return std::move(error).WithCode(Code::kDataLoss);
    return error;
  }
  rafs::Tree tree = *std::move(built);
  if (options.whiteouts != rafs::BuildOptions::Whiteouts::kNone) rafs::DropWhiteouts(tree);
  DAVIT_TRY_ASSIGN(const rafs::Bootstrap bootstrap, rafs::WriteBootstrap(tree, blobs, options));
  return WriteResult(flags, tree, blobs, bootstrap, flags.output + "/image.boot", io);
}

Status Merge(const LocalFlags& flags, Io& io) {
  rafs::BlobSet blobs;
  rafs::Tree merged;
  rafs::BuildOptions options;
  for (const std::string& path : flags.bootstraps) {
    DAVIT_TRY_ASSIGN(const auto metadata, OpenBootstrapFile(path));
    const rafs::ImageInfo& info = metadata->info();
    const bool first = merged.root == nullptr;
    if (!first && (info.chunk_size != options.chunk_size || info.compressor != options.compressor ||
                   info.digester != options.digester)) {
      return Error(Code::kInvalidArgument,
                   path + " differs from the first bootstrap in chunk size, compressor or digester")
          .WithHint("build all layers with the same options");
    }
    options.chunk_size = info.chunk_size;
    options.compressor = info.compressor;
    options.digester = info.digester;
    options.keep_uid_gid = info.explicit_uid_gid;
    DAVIT_TRY_ASSIGN(rafs::Tree layer, rafs::TreeFromBootstrap(*metadata, blobs));
    DAVIT_TRY(rafs::InterpretMarkers(layer, rafs::BuildOptions::Whiteouts::kOci));
    if (first) {
      merged = std::move(layer);
    } else {
      DAVIT_TRY(rafs::ApplyLayer(merged, std::move(layer)));
    }
  }
  rafs::DropWhiteouts(merged);
  DAVIT_TRY_ASSIGN(const rafs::Bootstrap bootstrap, rafs::WriteBootstrap(merged, blobs, options));
  return WriteResult(flags, merged, blobs, bootstrap, flags.output, io);
}

}  // namespace

void RegisterBuild(CLI::App& app, Run& chosen) {
  auto build = std::make_shared<LocalFlags>();
  CLI::App* command =
      app.add_subcommand("build", "Build a RAFS image from a directory or tar archive");
  command
      ->add_option("source", build->source,
                   "Directory, tar, tar.gz or tar.zst; - reads an archive from standard input")
      ->required();
  command
      ->add_option("-o,--to", build->output,
                   "Directory for image.boot and the blob, named by its id")
      ->required();
  command->add_option("--type", build->type, "auto, directory or tar")
      ->check(CLI::IsMember({"auto", "directory", "tar"}))
      ->capture_default_str();
  command
      ->add_option("--whiteouts", build->whiteouts,
                   "Deletion markers: oci, overlay, or none (kept as they are)")
      ->check(CLI::IsMember({"oci", "overlay", "none"}))
      ->capture_default_str();
  command->add_option("--chunk-dict", build->chunk_dict,
                      "Bootstrap of an image whose chunks need not be stored again");
  command->add_flag("--inline-bootstrap", build->inline_bootstrap,
                    "Put the bootstrap into the blob too, as layer blobs have it");
  command->add_flag("--no-toc", build->no_toc, "No table of contents at the blob's end");
  AddOutputFormat(*command, build->format);
  command->add_flag("--quiet", build->quiet, "Neither bars nor lines about progress");
  AddBuildFlags(*command, build->build);
  command->callback([build, &chosen] {
    chosen = [build](Io& io) {
      const Status status = Build(*build, io);
      return status.ok() ? kExitOk : Fail(io, status.error());
    };
  });

  auto merge = std::make_shared<LocalFlags>();
  CLI::App* merging = app.add_subcommand("merge", "Merge layer bootstraps, lowest first, into one");
  merging
      ->add_option(
          "bootstraps", merge->bootstraps,
          "Bootstraps of layers, as `davit extract` writes them (an inline one must be named "
          "by its blob's id) or as `davit build --whiteouts none` does")
      ->required();
  merging->add_option("-o,--to", merge->output, "File to write")->required();
  AddOutputFormat(*merging, merge->format);
  merging->callback([merge, &chosen] {
    chosen = [merge](Io& io) {
      const Status status = Merge(*merge, io);
      return status.ok() ? kExitOk : Fail(io, status.error());
    };
  });
}

}  // namespace davit::cli
