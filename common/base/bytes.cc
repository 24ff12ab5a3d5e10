#include "common/base/bytes.h"

#include <fmt/format.h>

namespace davit {

Result<Bytes> SubBytes(Bytes bytes, std::uint64_t offset, std::uint64_t length,
                       std::string_view what) {
  if (offset > bytes.size() || length > bytes.size() - offset) {
    return Error(Code::kDataLoss, fmt::format("{} at {} + {} is outside the {} bytes there are",
                                              what, offset, length, bytes.size()));
  }
  return bytes.subspan(offset, length);
}

std::string ToHex(Bytes bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (std::byte b : bytes) {
    out.push_back(kDigits[std::to_integer<unsigned>(b) >> 4]);
    out.push_back(kDigits[std::to_integer<unsigned>(b) & 15]);
  }
  return out;
}

namespace {
int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}
}  // namespace

Result<std::string> FromHex(std::string_view hex) {
  if (hex.size() % 2 != 0) return Error(Code::kInvalidArgument, "hex text of odd length");
  std::string out;
  out.reserve(hex.size() / 2);
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int high = HexValue(hex[i]);
    const int low = HexValue(hex[i + 1]);
    if (high < 0 || low < 0) return Error(Code::kInvalidArgument, "text is not hex");
    out.push_back(static_cast<char>(high * 16 + low));
  }
  return out;
}

}  // namespace davit
