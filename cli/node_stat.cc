// What is known about one mount: davit info MOUNT, davit stat MOUNT.

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <ostream>

#include "cli/node_session.h"
#include "cli/output.h"

namespace davit::cli {
namespace {

using daemon::api::MountInfo;

std::string LocalText(const MountInfo& info) {
  std::string share = "-";
  if (info.complete) {
    share = "all";
  } else if (info.bytes_total != 0) {
    // 100 % is said of complete ones only.
    const double part =
        100.0 * static_cast<double>(info.bytes_ready) / static_cast<double>(info.bytes_total);
    share = fmt::format("{:.1f} %", std::min(part, 99.9));
  }
  return fmt::format("{} of {} ({})", HumanBytes(info.bytes_ready), HumanBytes(info.bytes_total),
                     share);
}

std::string HealthText(const MountInfo& info) {
  if (info.error.empty()) return info.state == "mounted" ? "good" : info.state;
  if (info.error_at_unix == 0) return info.error;
  const auto time = static_cast<std::time_t>(info.error_at_unix);
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return fmt::format("{} ({})", info.error, text);
}

// A path, or a word that is no reference to an image with a tag, a digest or a directory.
bool MayBeMount(const std::string& target) {
  if (target.starts_with('/') || target.starts_with("./") || target.starts_with("../") ||
      target == ".") {
    return true;
  }
  return target.find_first_of("/:@") == std::string::npos;
}

}  // namespace

void PrintMount(Io& io, const MountInfo& info) {
  const auto line = [&](std::string_view name, std::string_view value) {
    if (!value.empty()) io.out << fmt::format("{:<12} {}\n", name, Printable(value));
  };
  line("id", info.id);
  line("state", info.state);
  line("health", HealthText(info));
  line("image", info.source);
  line("digest", info.manifest_digest);
  line("platform", info.platform);
  line("mountpoint", info.mountpoint);
  line("volume", info.volume);
  line("data path", info.data_path);
  line("local", LocalText(info));
  line("reads",
       fmt::format("{} with {}; {} found all in the cache, {} had to wait for bytes", info.reads,
                   HumanBytes(info.read_bytes),
                   info.reads - std::min(info.reads, info.waited_reads), info.waited_reads));
  line("errors", std::to_string(info.read_errors));
  line("mounting", fmt::format("{} ms", info.mount_ms));
}

std::optional<int> StatMount(Io& io, const NodeOptions& options, const std::string& target) {
  if (!MayBeMount(target)) return std::nullopt;
  const bool path = target.find('/') != std::string::npos || target == ".";
  auto session = NodeSession::Open(options);
  if (!session) {
    io.err << "davit: " << session.error().ToString() << "\n";
    return kExitUsage;
  }
  const auto info = FindMount(**session, target);
  if (!info) {
    if (!path) return std::nullopt;  // the name of an image, then
    io.err << "davit: " << info.error().ToString() << "\n";
    return kExitFailure;
  }
  if (options.output == "json") {
    io.out << daemon::api::ToJson(*info) << "\n";
  } else {
    PrintMount(io, *info);
  }
  return kExitOk;
}

}  // namespace davit::cli
