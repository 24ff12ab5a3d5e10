#pragma once
// Shared by the tests of rafs/metadata.

#include <memory>
#include <string>
#include <utility>

#include "rafs/metadata/metadata.h"
#include "tests/support/raw_image/raw_image.h"

namespace davit::rafs {

inline constexpr std::uint8_t kTypeFile = 1, kTypeDir = 2, kTypeLink = 7;

/// Opens bytes; the metadata keeps them alive.
inline Result<std::unique_ptr<Metadata>> OpenBytes(
    std::string bytes, std::optional<storage::BlobId> own = std::nullopt) {
  auto owner = std::make_shared<const std::string>(std::move(bytes));
  const Bytes view = AsBytes(*owner);
  return Metadata::Open(view, std::move(owner), std::move(own));
}

/// The code of what must be an error; kInternal with a message otherwise would hide a success.
template <class T>
std::string Outcome(const Result<T>& result) {
  return result ? "ok" : std::string(CodeName(result.error().code()));
}

}  // namespace davit::rafs
