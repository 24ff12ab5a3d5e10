#pragma once
// Tar streams with exact control over every header field, valid or not.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/codec/stream.h"

namespace davit::testing {

struct TarEntry {
  std::string name;
  char type = '0';  // '0' file, '1' hard link, '2' symlink, '3' chr, '4' blk, '5' dir, '6' fifo
  std::string data{};
  std::string link{};
  std::uint32_t mode = 0644;
  std::int64_t uid = 0, gid = 0;
  std::int64_t mtime = 0;
  std::uint32_t major = 0, minor = 0;
  std::vector<std::pair<std::string, std::string>>
      pax{};              // records of an extended header before it
  bool gnu_long = false;  // name and link in GNU 'L' and 'K' entries
};

class TarWriter {
 public:
  TarWriter& Add(const TarEntry& entry);
  TarWriter& Dir(const std::string& name, std::uint32_t mode = 0755);
  TarWriter& File(const std::string& name, const std::string& data, std::uint32_t mode = 0644);
  TarWriter& Symlink(const std::string& name, const std::string& target);
  TarWriter& HardLink(const std::string& name, const std::string& target);
  /// Any bytes, as they are.
  TarWriter& Raw(const std::string& bytes);
  /// With the two zero blocks at the end, or without.
  std::string Finish(bool trailer = true) const;

 private:
  void Header(const TarEntry& entry, const std::string& name, const std::string& link,
              std::uint64_t size);
  void Data(const std::string& data);
  std::string out_;
};

/// A stream over a string, delivered in pieces of `piece` bytes.
std::unique_ptr<codec::ByteStream> StringStream(std::string data, std::size_t piece = 1 << 16);

/// Reproducible bytes; `compressible`: text-like, else random.
std::string PatternData(std::uint64_t seed, std::size_t size, bool compressible = true);

}  // namespace davit::testing
