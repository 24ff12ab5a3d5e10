// Manifests and indexes: what parses prints to a text that means the same.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "common/base/bytes.h"
#include "storage/registry/manifest_document.h"
#include "storage/registry/oci.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = davit::AsText(std::as_bytes(std::span(data, size)));
  const auto manifest = davit::oci::ParseManifest(text);
  if (manifest.ok()) {
    const std::string printed = davit::oci::ToJson(*manifest);
    const auto again = davit::oci::ParseManifest(printed);
    if (!again.ok() || davit::oci::ToJson(*again) != printed) std::abort();
  }
  const auto index = davit::oci::ParseIndex(text);
  if (index.ok()) {
    if (manifest.ok()) std::abort();  // nothing is both
    const std::string printed = davit::oci::ToJson(*index);
    const auto again = davit::oci::ParseIndex(printed);
    if (!again.ok() || davit::oci::ToJson(*again) != printed) std::abort();
  }
  static_cast<void>(davit::registry::ManifestType(text, davit::oci::kIndex));
  return 0;
}
