#pragma once
// Uses every part of a bootstrap once; for tests with damaged images and for the fuzzer.

#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "rafs/metadata/metadata.h"

namespace davit::rafs {

/// The first error, or success when everything could be read. `image` must outlive the call.
inline Status WalkEverything(Bytes image) {
  DAVIT_TRY_ASSIGN(const auto m,
                   Metadata::Open(image, nullptr, storage::BlobId{std::string(64, 'f')}));
  static_cast<void>(m->PrefetchList());
  for (std::uint32_t b = 0; b < m->blobs().size(); ++b) {
    DAVIT_TRY_ASSIGN(const auto digests, m->Digests(b));
    for (std::uint32_t i = 0; i < std::min(m->blobs()[b].ci.chunk_count, 1000U); ++i) {
      static_cast<void>(digests->Get(i));
    }
  }
  std::uint64_t budget = 20000;  // inodes; keeps a fuzzer's runs short
  std::vector<Extent> extents;
  return Walk(*m, m->root(), [&](const std::string& path, const Attributes& a) -> Status {
    if (budget-- == 0) return Error(Code::kResourceExhausted, "enough");
    DAVIT_TRY(m->ListXattrs(a.id, [](std::string_view, Bytes) {}));
    static_cast<void>(m->GetXattr(a.id, "user.a"));
    static_cast<void>(LookupPath(*m, path));
    if (S_ISLNK(a.mode)) DAVIT_TRY(m->ReadLink(a.id));
    if (S_ISDIR(a.mode)) static_cast<void>(m->Lookup(a.id, "nobody"));
    if (S_ISREG(a.mode)) {
      extents.clear();
      DAVIT_TRY(m->Extents(a.id, 0, ~std::uint64_t{0}, extents));
    }
    return {};
  });
}

}  // namespace davit::rafs
