// WWW-Authenticate headers, and the realms in them.

#include <cstddef>
#include <cstdint>

#include "common/base/bytes.h"
#include "storage/registry/auth.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = davit::AsText(std::as_bytes(std::span(data, size)));
  static const davit::http::Url kRegistry{"https", "registry.example", 443, "/v2"};
  for (const auto& challenge : davit::registry::ParseChallenges(text)) {
    const auto realm = challenge.params.find("realm");
    if (realm != challenge.params.end())
      static_cast<void>(davit::registry::CheckRealm(kRegistry, realm->second));
  }
  return 0;
}
