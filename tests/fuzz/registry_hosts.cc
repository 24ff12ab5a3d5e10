// hosts.toml: there is always the registry itself at the end.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "common/base/bytes.h"
#include "storage/registry/hosts.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = davit::AsText(std::as_bytes(std::span(data, size)));
  const auto got = davit::registry::ParseHostsToml(text, "/dir", "registry.example", {});
  if (got.ok() && (got->empty() || got->back().mirror)) std::abort();
  return 0;
}
