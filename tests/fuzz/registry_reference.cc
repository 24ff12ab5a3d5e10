// Names of images: what parses prints to the same value again.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "common/base/bytes.h"
#include "storage/registry/reference.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using davit::registry::Reference;
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto one = Reference::Parse(davit::AsText(bytes));
  if (!one.ok()) return 0;
  const auto again = Reference::Parse(one->ToString());
  if (!again.ok() || !(*again == *one)) std::abort();
  return 0;
}
