// Bodies of davitd's API, in both directions: what clients send and what a client is answered.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "common/base/bytes.h"
#include "daemon/api/types.h"

namespace api = davit::daemon::api;

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = davit::AsText(std::as_bytes(std::span(data, size)));
  if (const auto mount = api::MountRequest::FromJson(text); mount.ok()) {
    const std::string printed = mount->ToJson();
    const auto again = api::MountRequest::FromJson(printed);
    if (!again.ok() || again->ToJson() != printed) std::abort();
  }
  if (const auto prefetch = api::PrefetchRequest::FromJson(text); prefetch.ok()) {
    const auto again = api::PrefetchRequest::FromJson(prefetch->ToJson());
    if (!again.ok() || again->paths != prefetch->paths) std::abort();
  }
  if (const auto info = api::MountInfoFromJson(text); info.ok()) {
    const std::string printed = api::ToJson(*info);
    const auto again = api::MountInfoFromJson(printed);
    if (!again.ok() || api::ToJson(*again) != printed) std::abort();
  }
  static_cast<void>(api::MountListFromJson(text));
  static_cast<void>(api::DaemonInfoFromJson(text));
  static_cast<void>(api::EventsFromJson(text));
  static_cast<void>(api::CacheInfoFromJson(text));
  if (api::ErrorFromReply(static_cast<int>(size % 600), text).ToString().empty()) std::abort();
  return 0;
}
