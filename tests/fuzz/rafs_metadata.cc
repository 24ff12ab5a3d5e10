// A bootstrap: opened, walked, every part of it read.

#include <cstddef>
#include <cstdint>

#include "tests/unit/rafs_metadata/walk_everything.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static_cast<void>(davit::rafs::WalkEverything(std::as_bytes(std::span(data, size))));
  return 0;
}
