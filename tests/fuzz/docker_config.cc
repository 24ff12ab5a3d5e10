// Docker's config.json and Kubernetes' .dockercfg as pull secrets hold them. No helper is started:
// the text is only asked for a host when it names none.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "common/base/bytes.h"
#include "storage/registry/credentials.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(davit::AsText(std::as_bytes(std::span(data, size))));
  const auto provider = davit::registry::DockerConfigText(davit::Secret(text));
  if (!provider.ok() || text.find("cred") != std::string::npos ||
      text.find('\\') != std::string::npos) {
    return 0;
  }
  for (const char* host : {"docker.io", "registry.example:5000", "ghcr.io", "localhost"}) {
    const auto credential = (*provider)->Get({}, host, "team/app");
    static_cast<void>(credential.ok());
  }
  return 0;
}
