#pragma once
// Reads a built image back through rafs/metadata and storage/blobmeta, every chunk verified, into
// plain values that tests compare.

#include <cstdint>
#include <map>
#include <string>

#include "rafs/builder/builder.h"
#include "rafs/metadata/metadata.h"

namespace davit::testing {

struct Node {
  std::uint32_t mode = 0, uid = 0, gid = 0, rdev = 0, nlink = 0;
  std::int64_t mtime = 0;
  std::uint32_t mtime_nsec = 0;
  std::uint64_t id = 0;  // equal for hard links
  std::string content;   // of files
  std::string target;    // of symlinks
  std::map<std::string, std::string> xattrs;
};

/// By path without a leading slash; the root is "".
using Content = std::map<std::string, Node>;

/// The content of a bootstrap whose blobs are the files of `blobs`. An Error names what is wrong.
Result<Content> ReadImage(const std::string& bootstrap, const rafs::BlobSet& blobs,
                          const rafs::BuildOptions& options);

/// Uncompressed blob as a file system's device sees it: chunks at their offsets, zeros between.
Result<std::string> UncompressedBlob(const rafs::Metadata& metadata, std::uint32_t index,
                                     const std::string& path);

/// The bytes of a section that a blob's table of contents lists.
Result<std::string> BlobSection(const std::string& path, std::string_view name);

}  // namespace davit::testing
