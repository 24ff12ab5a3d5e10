// davit ps, info, prefetch, cache: a look at the node's daemon.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cli/node_session.h"
#include "common/config/units.h"
#include "common/json/json.h"

namespace davit::cli {
namespace {

using daemon::api::MountInfo;

struct Flags {
  NodeOptions node;
  std::string target;
  std::vector<std::string> paths;
  std::string bytes;
};

Context Soon() { return Context{}.WithTimeout(std::chrono::seconds(30)); }

std::string Size(std::uint64_t bytes) {
  if (bytes < 1U << 20) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / 1024);
  if (bytes < 1U << 30) return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1U << 20));
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1U << 30));
}

std::string Local(std::uint64_t ready, std::uint64_t total, bool complete) {
  if (complete) return "all";
  if (total == 0) return "-";
  // 100 % is said of complete ones only.
  const double part = 100.0 * static_cast<double>(ready) / static_cast<double>(total);
  return fmt::format("{:.1f} %", std::min(part, 99.9));
}

Status Ps(Io& io, NodeSession& session, const Flags& flags) {
  DAVIT_TRY_ASSIGN(const std::vector<MountInfo> mounts, session.client().List(Soon()));
  if (flags.node.output == "json") {
    io.out << daemon::api::ToJson(mounts) << "\n";
    return {};
  }
  std::size_t id_width = 2;
  std::size_t point_width = 10;
  for (const MountInfo& mount : mounts) {
    id_width = std::max(id_width, mount.id.size());
    point_width = std::max(point_width, mount.mountpoint.size());
  }
  io.out << fmt::format("{:<{}}  {:<10}  {:>7}  {:>10}  {:<{}}  IMAGE\n", "ID", id_width, "STATE",
                        "LOCAL", "SIZE", "MOUNTPOINT", point_width);
  for (const MountInfo& mount : mounts) {
    io.out << fmt::format("{:<{}}  {:<10}  {:>7}  {:>10}  {:<{}}  {}\n", mount.id, id_width,
                          mount.state, Local(mount.bytes_ready, mount.bytes_total, mount.complete),
                          Size(mount.bytes_total), mount.mountpoint, point_width, mount.source);
    if (!mount.error.empty()) io.out << "    " << mount.error << "\n";
  }
  return {};
}

Status ShowDaemon(Io& io, NodeSession& session, const Flags& flags) {
  DAVIT_TRY_ASSIGN(const auto info, session.client().Info(Soon()));
  if (flags.node.output == "json") {
    io.out << daemon::api::ToJson(info) << "\n";
    return {};
  }
  io.out << fmt::format("davitd {}: {}, pid {}, {} mounts, log level {}\n", info.version,
                        info.state, info.pid, info.mounts, info.log_level);
  return {};
}

Status ShowMount(Io& io, NodeSession& session, const Flags& flags) {
  DAVIT_TRY_ASSIGN(const MountInfo info, FindMount(session, flags.target));
  if (flags.node.output == "json") {
    io.out << daemon::api::ToJson(info) << "\n";
    return {};
  }
  PrintMount(io, info);
  return {};
}

Status Prefetch(Io& io, NodeSession& session, const Flags& flags) {
  DAVIT_TRY_ASSIGN(const MountInfo info, FindMount(session, flags.target));
  daemon::api::PrefetchRequest request;
  request.paths = flags.paths;
  DAVIT_TRY_ASSIGN(const std::string reply,
                   session.client().Call(Soon(), "POST", "/api/v1/mounts/" + info.id + "/prefetch",
                                         request.ToJson()));
  if (flags.node.output == "json") io.out << reply << "\n";
  return {};
}

Status CacheList(Io& io, NodeSession& session, const Flags& flags) {
  DAVIT_TRY_ASSIGN(const std::string reply,
                   session.client().Call(Soon(), "GET", "/api/v1/cache", ""));
  if (flags.node.output == "json") {
    io.out << reply << "\n";
    return {};
  }
  DAVIT_TRY_ASSIGN(const auto cache, daemon::api::CacheInfoFromJson(reply));
  io.out << fmt::format("{}: {} of {} used, {} chunk hits, {} misses, {} fetched, {} evicted\n",
                        cache.directory, Size(cache.bytes_on_disk), Size(cache.budget_bytes),
                        cache.hits, cache.misses, Size(cache.fetched_bytes),
                        Size(cache.evicted_bytes));
  for (const auto& blob : cache.blobs) {
    io.out << fmt::format("{}  {:>7}  {:>10}  {}\n", blob.id,
                          Local(blob.bytes_ready, blob.bytes_total, blob.complete),
                          Size(blob.bytes_total), blob.in_use ? "in use" : "");
  }
  return {};
}

Status CacheEvict(Io& io, NodeSession& session, const Flags& flags) {
  DAVIT_TRY_ASSIGN(const std::uint64_t bytes, ParseSize(flags.bytes));
  DAVIT_TRY_ASSIGN(const std::string reply,
                   session.client().Call(Context{}, "POST", "/api/v1/cache/evict",
                                         fmt::format(R"({{"bytes":{}}})", bytes)));
  if (flags.node.output == "json") {
    io.out << reply << "\n";
    return {};
  }
  DAVIT_TRY_ASSIGN(const nlohmann::json body, json::Parse(reply, "the daemon's reply"));
  DAVIT_TRY_ASSIGN(const auto freed, json::GetUint(body, "freed_bytes"));
  if (freed) {
    io.out << Size(*freed) << " freed\n";
  } else {
    io.out << "the disk is slow; it goes on in the background\n";
  }
  return {};
}

// A command whose work is `work`.
template <class Work>
CLI::App* Add(CLI::App& app, Run& chosen, const std::string& name, const std::string& text,
              const std::shared_ptr<Flags>& flags, Work work) {
  CLI::App* command = app.add_subcommand(name, text);
  AddNodeOptions(*command, flags->node);
  command->callback([flags, &chosen, work] {
    chosen = [flags, work](Io& io) {
      return WithSession(io, flags->node,
                         [&](NodeSession& session) { return work(io, session, *flags); });
    };
  });
  return command;
}

}  // namespace

void RegisterNodeCommands(CLI::App& app, Run& chosen) {
  RegisterMountCommands(app, chosen);
  const auto flags = [] { return std::make_shared<Flags>(); };
  Add(app, chosen, "ps", "List the mounts of this node", flags(), Ps);

  auto info = flags();
  Add(app, chosen, "info", "Show the daemon, or one mount", info,
      [](Io& io, NodeSession& session, const Flags& f) {
        return f.target.empty() ? ShowDaemon(io, session, f) : ShowMount(io, session, f);
      })
      ->add_option("mount", info->target, "Id or mount point; none: the daemon");

  auto prefetch = flags();
  CLI::App* fetch =
      Add(app, chosen, "prefetch", "Fetch files of a mount in the background", prefetch, Prefetch);
  fetch->add_option("mount", prefetch->target, "Id or mount point")->required();
  fetch->add_option("paths", prefetch->paths,
                    "Files and directories inside the image; none: all of it");

  CLI::App* cache = app.add_subcommand("cache", "Look at the node's cache, or free space");
  cache->require_subcommand(1);
  Add(*cache, chosen, "ls", "List what is cached", flags(), CacheList);
  auto evict = flags();
  Add(*cache, chosen, "evict", "Free space, least recently used first", evict, CacheEvict)
      ->add_option("bytes", evict->bytes, "How much, for example 5GiB")
      ->required();
}

}  // namespace davit::cli
