#pragma once
// The files of an OCI layout: oci-layout, index.json, blobs/sha256. Names come from validated
// digests only, never from content.

#include <functional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/context.h"
#include "common/base/fd.h"
#include "storage/registry/oci.h"

namespace davit::registry {

class LayoutStore {
 public:
  LayoutStore(std::string path, Clock& clock) : path_(std::move(path)), clock_(clock) {}
  const std::string& path() const { return path_; }

  /// kNotFound when there is no layout, kUnsupported for another version.
  Result<oci::Index> ReadIndex() const;
  /// Creates the layout if need be, then replaces index.json by what `edit` makes of it.
  Status EditIndex(const Context& ctx, const std::function<Status(oci::Index&)>& edit);
  Status Create() const;

  Result<std::string> BlobPath(const std::string& digest) const;
  /// Opens a blob; kNotFound, naming the digest and the layout.
  Result<UniqueFd> OpenBlob(const std::string& digest) const;
  /// A whole blob, verified; kResourceExhausted above `limit`.
  Result<std::string> ReadBlob(const std::string& digest, std::uint64_t limit) const;
  Status WriteBlob(const std::string& digest, Bytes content) const;

 private:
  const std::string path_;
  Clock& clock_;
};

}  // namespace davit::registry
