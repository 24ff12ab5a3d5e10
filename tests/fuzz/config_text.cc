// Configuration files and values: what was accepted prints to a text that means the same.
// First byte: what the rest is.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "common/config/config.h"
#include "common/config/units.h"
#include "tests/support/fuzz/fuzz_input.h"

namespace {

davit::config::Sources NoEnvironment() {
  return {.file = {}, .env = [](const std::string&) { return std::nullopt; }, .overrides = {}};
}

void CheckLoaded(const davit::Result<davit::config::Loaded>& loaded) {
  if (!loaded.ok()) return;
  const std::string printed = davit::config::ToJson(loaded->config);
  const auto again = davit::config::LoadText(printed, "json", NoEnvironment());
  // A password is left out of the text, which may be no proxy then.
  if (loaded->config.registry.proxy.find('@') != std::string::npos) return;
  if (!again.ok() || davit::config::ToJson(again->config) != printed) std::abort();
}

void CheckUnits(std::string_view text) {
  if (const auto size = davit::ParseSize(text); size.ok()) {
    const auto again = davit::ParseSize(davit::FormatSize(*size));
    if (!again.ok() || *again != *size) std::abort();
  }
  if (const auto duration = davit::ParseDuration(text); duration.ok()) {
    const auto again = davit::ParseDuration(davit::FormatDuration(*duration));
    if (!again.ok() || *again != *duration) std::abort();
  }
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  davit::testing::FuzzInput input(data, size);
  switch (input.Byte()) {
    case 't':
      CheckLoaded(davit::config::LoadText(input.Rest(), "toml", NoEnvironment()));
      break;
    case 'j':
      CheckLoaded(davit::config::LoadText(input.Rest(), "json", NoEnvironment()));
      break;
    case 'o': {  // lines of key=value, as the environment and the command line give them
      auto sources = NoEnvironment();
      for (auto line = input.Line(); !line.empty(); line = input.Line()) {
        const std::size_t equals = line.find('=');
        if (equals == std::string_view::npos) continue;
        sources.overrides.emplace_back(line.substr(0, equals), line.substr(equals + 1));
      }
      CheckLoaded(davit::config::LoadText("", "toml", sources));
      break;
    }
    default:
      CheckUnits(input.Rest());
  }
  return 0;
}
