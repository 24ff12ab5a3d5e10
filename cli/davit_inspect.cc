// davit inspect, davit stat: what is in an image, without its data.

#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <ostream>
#include <unordered_set>

#include "cli/davit_app.h"
#include "cli/image_access.h"
#include "cli/node_session.h"
#include "cli/output.h"
#include "common/json/json.h"

namespace davit::cli {
namespace {

using nlohmann::json;

struct InspectFlags {
  std::string image, bootstrap, path, format = "text";
  ImageAccessOptions access;
};

json BlobJson(const rafs::BlobRecord& blob) {
  return {{"id", blob.id.value},
          {"compressed_bytes", blob.compressed_size},
          {"uncompressed_bytes", blob.ci.uncompressed_size},
          {"chunks", blob.ci.chunk_count},
          {"features", fmt::format("{:#010x}", blob.features)}};
}

json ImageJson(const OpenedImage& image) {
  const rafs::ImageInfo& info = image.metadata->info();
  json blobs = json::array();
  for (const rafs::BlobRecord& blob : image.metadata->blobs()) blobs.push_back(BlobJson(blob));
  return {{"manifest", image.manifest_digest},
          {"version", info.version},
          {"inodes", info.inodes},
          {"chunk_size", info.chunk_size},
          {"compressor", codec::AlgorithmName(info.compressor)},
          {"digester", DigestAlgorithmName(info.digester)},
          {"xattrs", info.has_xattrs},
          {"blobs", std::move(blobs)}};
}

void PrintImage(const OpenedImage& image, Io& io) {
  const rafs::ImageInfo& info = image.metadata->info();
  if (!image.manifest_digest.empty()) io.out << "manifest    " << image.manifest_digest << "\n";
  io.out << fmt::format(
      "version     {}\ninodes      {}\nchunk size  {}\ncompressor  {}\ndigester    {}\nxattrs      "
      "{}\n",
      info.version, info.inodes, HumanBytes(info.chunk_size), codec::AlgorithmName(info.compressor),
      DigestAlgorithmName(info.digester), info.has_xattrs ? "yes" : "no");
  io.out << "blobs\n";
  for (const rafs::BlobRecord& blob : image.metadata->blobs()) {
    io.out << fmt::format("  {}  {:>10} stored  {:>10} plain  {:>7} chunks\n", blob.id.value,
                          HumanBytes(blob.compressed_size), HumanBytes(blob.ci.uncompressed_size),
                          blob.ci.chunk_count);
  }
}

const char* TypeName(std::uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "file";
    case S_IFDIR:
      return "directory";
    case S_IFLNK:
      return "symlink";
    case S_IFCHR:
      return "character device";
    case S_IFBLK:
      return "block device";
    case S_IFIFO:
      return "fifo";
    default:
      return "socket";
  }
}

/// A name in JSON; one that is not UTF-8 is given in hexadecimal too, as it would be lost.
void SetName(json& out, const char* key, std::string_view name) {
  out[key] = name;
  const json text = name;
  if (text.dump(-1, ' ', false, json::error_handler_t::ignore) != davit::json::Dump(text)) {
    std::string hex;
    for (const char c : name) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
    out[std::string(key) + "_hex"] = hex;
  }
}

Result<json> AttributesJson(const rafs::Metadata& metadata, const rafs::Attributes& a) {
  json out = {{"inode", a.id.value},
              {"type", TypeName(a.mode)},
              {"mode", fmt::format("{:o}", a.mode)},
              {"uid", a.uid},
              {"gid", a.gid},
              {"size", a.size},
              {"nlink", a.nlink},
              {"mtime", a.mtime},
              {"mtime_nsec", a.mtime_nsec}};
  if (S_ISLNK(a.mode)) {
    DAVIT_TRY_ASSIGN(const std::string target, metadata.ReadLink(a.id));
    SetName(out, "target", target);
  }
  return out;
}

/// Calls `visit` for every entry of a directory.
Status ForEachEntry(const rafs::Metadata& metadata, rafs::InodeId directory,
                    const std::function<Status(std::string_view, const rafs::Attributes&)>& visit) {
  Status failed;
  DAVIT_TRY(metadata.ListDir(directory, 0, [&](const rafs::DirEntry& entry, std::uint64_t) {
    if (entry.name == "." || entry.name == "..") return true;
    const auto a = metadata.Stat(entry.id);
    failed = a.ok() ? visit(entry.name, *a) : Status(a.error());
    return failed.ok();
  }));
  return failed;
}

Result<json> InodeJson(const rafs::Metadata& metadata, const std::string& path,
                       const rafs::Attributes& a) {
  DAVIT_TRY_ASSIGN(json out, AttributesJson(metadata, a));
  SetName(out, "path", path);
  json names = json::array();
  DAVIT_TRY(
      metadata.ListXattrs(a.id, [&](std::string_view name, Bytes) { names.push_back(name); }));
  if (!names.empty()) out["xattrs"] = std::move(names);
  if (S_ISDIR(a.mode)) {
    out["entries"] = json::array();
    DAVIT_TRY(ForEachEntry(metadata, a.id,
                           [&](std::string_view name, const rafs::Attributes& entry) -> Status {
                             DAVIT_TRY_ASSIGN(json line, AttributesJson(metadata, entry));
                             SetName(line, "name", name);
                             out["entries"].push_back(std::move(line));
                             return {};
                           }));
  }
  if (S_ISREG(a.mode)) {
    out["extents"] = json::array();
    std::vector<rafs::Extent> extents;
    DAVIT_TRY(metadata.Extents(a.id, 0, a.size, extents));
    for (const rafs::Extent& e : extents) {
      json piece = {{"offset", e.file_offset}, {"length", e.length}};
      if (e.blob)
        piece.update({{"blob", *e.blob}, {"blob_offset", e.blob_offset}, {"chunk", e.chunk}});
      out["extents"].push_back(std::move(piece));
    }
  }
  return out;
}

Status InspectPath(const OpenedImage& image, const InspectFlags& flags, Io& io) {
  const rafs::Metadata& metadata = *image.metadata;
  const auto inode = rafs::LookupPath(metadata, flags.path);
  if (!inode.ok()) {
    return Error(inode.error())
        .WithCode(Code::kNotFound)
        .WithContext("path '" + flags.path + "'")
        .WithHint("inspect --path of a directory above lists what there is");
  }
  DAVIT_TRY_ASSIGN(const rafs::Attributes attributes, metadata.Stat(*inode));
  if (flags.format == "json") {
    DAVIT_TRY_ASSIGN(const json out, InodeJson(metadata, flags.path, attributes));
    io.out << davit::json::Dump(out, 2) << "\n";
    return {};
  }
  const auto line = [&](std::string_view name, const rafs::Attributes& a) -> Status {
    std::string target;
    if (S_ISLNK(a.mode)) {
      DAVIT_TRY_ASSIGN(target, metadata.ReadLink(a.id));
      target = " -> " + target;
    }
    io.out << fmt::format("{:>7o} {:>5} {:>5} {:>12} {}\n", a.mode, a.uid, a.gid, a.size,
                          Printable(std::string(name) + target));
    return {};
  };
  if (!S_ISDIR(attributes.mode)) return line(flags.path, attributes);
  return ForEachEntry(metadata, *inode, line);
}

Status Inspect(const InspectFlags& flags, Io& io) {
  ImageAccess access(flags.access);
  const SignalContext signals;
  DAVIT_TRY_ASSIGN(const OpenedImage image,
                   OpenImage(signals.ctx(), access, flags.image, flags.bootstrap, ""));
  if (!flags.path.empty()) return InspectPath(image, flags, io);
  if (flags.format == "json") {
    io.out << davit::json::Dump(ImageJson(image), 2) << "\n";
  } else {
    PrintImage(image, io);
  }
  return {};
}

struct Totals {
  std::uint64_t files = 0, directories = 0, hard_links = 0, symlinks = 0, others = 0, bytes = 0;
  std::uint64_t stored = 0, plain = 0, chunks = 0;
};

Status Statistics(const InspectFlags& flags, Io& io) {
  ImageAccess access(flags.access);
  const SignalContext signals;
  DAVIT_TRY_ASSIGN(const OpenedImage image,
                   OpenImage(signals.ctx(), access, flags.image, flags.bootstrap, ""));
  Totals totals;
  std::unordered_set<std::uint64_t> linked;  // files of several names, which count once
  DAVIT_TRY(rafs::Walk(*image.metadata, image.metadata->root(),
                       [&](const std::string&, const rafs::Attributes& a) -> Status {
                         if (S_ISREG(a.mode)) {
                           if (a.nlink > 1 && !linked.insert(a.id.value).second) {
                             ++totals.hard_links;
                             return {};
                           }
                           ++totals.files;
                           totals.bytes += a.size;
                         } else if (S_ISDIR(a.mode)) {
                           ++totals.directories;
                         } else if (S_ISLNK(a.mode)) {
                           ++totals.symlinks;
                         } else {
                           ++totals.others;
                         }
                         return {};
                       }));
  for (const rafs::BlobRecord& blob : image.metadata->blobs()) {
    totals.stored += blob.compressed_size;
    totals.plain += blob.ci.uncompressed_size;
    totals.chunks += blob.ci.chunk_count;
  }
  if (flags.format == "json") {
    io.out << davit::json::Dump({{"files", totals.files},
                                 {"hard_links", totals.hard_links},
                                 {"directories", totals.directories},
                                 {"symlinks", totals.symlinks},
                                 {"others", totals.others},
                                 {"bytes", totals.bytes},
                                 {"stored_bytes", totals.stored},
                                 {"cache_bytes", totals.plain},
                                 {"chunks", totals.chunks}})
           << "\n";
  } else {
    io.out << fmt::format(
        "{} files with {}, {} hard links, {} directories, {} symlinks, {} others\n{} stored, "
        "{} in a node's cache, {} chunks\n",
        totals.files, HumanBytes(totals.bytes), totals.hard_links, totals.directories,
        totals.symlinks, totals.others, HumanBytes(totals.stored), HumanBytes(totals.plain),
        totals.chunks);
  }
  return {};
}

CLI::App* AddCommand(CLI::App& app, const char* name, const char* text,
                     const std::shared_ptr<InspectFlags>& flags) {
  CLI::App* command = app.add_subcommand(name, text);
  command->add_option("image", flags->image,
                      "RAFS image: host/name:tag, host/name@digest or oci:/path:tag");
  command->add_option("--bootstrap", flags->bootstrap,
                      "A local bootstrap file instead of an image");
  AddOutputFormat(*command, flags->format);
  AddImageAccessOptions(*command, flags->access, true);
  return command;
}

}  // namespace

void RegisterInspect(CLI::App& app, Run& chosen) {
  auto inspect = std::make_shared<InspectFlags>();
  CLI::App* command = AddCommand(
      app, "inspect", "Show an image's parameters and blobs, or one path in it", inspect);
  command->add_option("--path", inspect->path,
                      "A path in the image: attributes, and a directory's entries");
  command->callback([inspect, &chosen] {
    chosen = [inspect](Io& io) {
      const Status status = Inspect(*inspect, io);
      return status.ok() ? kExitOk : Fail(io, status.error());
    };
  });
  auto statistics = std::make_shared<InspectFlags>();
  auto node = std::make_shared<NodeOptions>();
  CLI::App* stat = AddCommand(
      app, "stat", "Count an image's files, bytes and chunks, or a mount's reads", statistics);
  stat->get_option("image")->description(
      "RAFS image: host/name:tag, host/name@digest or oci:/path:tag; or a mount of this node: its "
      "mount point or id");
  stat->add_option("--socket", node->socket, "Socket of the daemon (api.socket)");
  stat->callback([statistics, node, &chosen] {
    chosen = [statistics, node](Io& io) {
      node->output = statistics->format;
      node->config_file = statistics->access.config_file;
      if (statistics->bootstrap.empty()) {
        if (const auto code = StatMount(io, *node, statistics->image)) return *code;
      }
      const Status status = Statistics(*statistics, io);
      return status.ok() ? kExitOk : Fail(io, status.error());
    };
  });
}

}  // namespace davit::cli
