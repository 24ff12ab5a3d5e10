#include "tests/support/tree/tar_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <random>

namespace davit::testing {
namespace {

constexpr std::size_t kBlock = 512;

// Octal, or base 256 for what does not fit (GNU).
void PutNumber(char* field, std::size_t size, std::int64_t value) {
  if (value >= 0 && value < (std::int64_t{1} << (3 * (size - 1)))) {
    fmt::format("{:0{}o}", value, size - 1).copy(field, size);  // a NUL is left behind it
    return;
  }
  for (std::size_t i = size; i-- > 0;) {
    field[i] = static_cast<char>(value & 0xFF);
    value >>= 8;
  }
  field[0] = static_cast<char>(static_cast<unsigned char>(field[0]) | 0x80U);
}

std::string PaxRecord(const std::string& key, const std::string& value) {
  const std::size_t rest = key.size() + value.size() + 3;
  std::size_t length = rest + 1;
  while (std::to_string(length).size() + rest != length) ++length;
  return std::to_string(length) + " " + key + "=" + value + "\n";
}

class Stream final : public codec::ByteStream {
 public:
  Stream(std::string data, std::size_t piece) : data_(std::move(data)), piece_(piece) {}
  Result<std::size_t> Read(MutableBytes out) override {
    const std::size_t n = std::min({piece_, out.size(), data_.size() - at_});
    if (n != 0) std::memcpy(out.data(), data_.data() + at_, n);
    at_ += n;
    return n;
  }

 private:
  std::string data_;
  std::size_t piece_, at_ = 0;
};

}  // namespace

void TarWriter::Header(const TarEntry& entry, const std::string& name, const std::string& link,
                       std::uint64_t size) {
  char h[kBlock] = {};
  std::memcpy(h, name.data(), std::min<std::size_t>(name.size(), 100));
  PutNumber(h + 100, 8, entry.mode);
  PutNumber(h + 108, 8, entry.uid);
  PutNumber(h + 116, 8, entry.gid);
  PutNumber(h + 124, 12, static_cast<std::int64_t>(size));
  PutNumber(h + 136, 12, entry.mtime);
  h[156] = entry.type;
  std::memcpy(h + 157, link.data(), std::min<std::size_t>(link.size(), 100));
  std::memcpy(h + 257, "ustar  ", 8);  // GNU
  PutNumber(h + 329, 8, entry.major);
  PutNumber(h + 337, 8, entry.minor);
  std::memset(h + 148, ' ', 8);
  unsigned sum = 0;
  for (const char c : h) sum += static_cast<unsigned char>(c);
  fmt::format("{:06o}", sum).copy(h + 148, 6);
  h[154] = '\0';
  h[155] = ' ';
  out_.append(h, kBlock);
}

void TarWriter::Data(const std::string& data) {
  out_ += data;
  out_.resize((out_.size() + kBlock - 1) / kBlock * kBlock, '\0');
}

TarWriter& TarWriter::Add(const TarEntry& entry) {
  if (!entry.pax.empty()) {
    std::string records;
    for (const auto& [key, value] : entry.pax) records += PaxRecord(key, value);
    Header({.name = {}, .type = 'x'}, "pax", "", records.size());
    Data(records);
  }
  const auto long_field = [&](char type, const std::string& text) {
    Header({.name = {}, .type = type}, "././@LongLink", "", text.size() + 1);
    Data(text + '\0');
  };
  if (entry.gnu_long && entry.name.size() > 100) long_field('L', entry.name);
  if (entry.gnu_long && entry.link.size() > 100) long_field('K', entry.link);
  Header(entry, entry.name, entry.link, entry.data.size());
  Data(entry.data);
  return *this;
}

TarWriter& TarWriter::Dir(const std::string& name, std::uint32_t mode) {
  return Add({.name = name, .type = '5', .mode = mode});
}
TarWriter& TarWriter::File(const std::string& name, const std::string& data, std::uint32_t mode) {
  return Add({.name = name, .data = data, .mode = mode});
}
TarWriter& TarWriter::Symlink(const std::string& name, const std::string& target) {
  return Add({.name = name, .type = '2', .link = target, .mode = 0777});
}
TarWriter& TarWriter::HardLink(const std::string& name, const std::string& target) {
  return Add({.name = name, .type = '1', .link = target});
}
TarWriter& TarWriter::Raw(const std::string& bytes) {
  out_ += bytes;
  return *this;
}

std::string TarWriter::Finish(bool trailer) const {
  return trailer ? out_ + std::string(2 * kBlock, '\0') : out_;
}

std::unique_ptr<codec::ByteStream> StringStream(std::string data, std::size_t piece) {
  return std::make_unique<Stream>(std::move(data), piece);
}

std::string PatternData(std::uint64_t seed, std::size_t size, bool compressible) {
  std::mt19937_64 random(seed);
  std::string out;
  out.reserve(size + 16);
  while (out.size() < size) {
    const std::uint64_t value = random();
    if (compressible) {
      out += "line " + std::to_string(value % 1000) + " of some text\n";
    } else {
      out.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }
  out.resize(size);
  return out;
}

}  // namespace davit::testing
