#include "storage/registry/base64.h"

#include <openssl/evp.h>

#include <limits>

namespace davit::registry {

std::string Base64Encode(std::string_view data) {
  std::string out(4 * ((data.size() + 2) / 3) + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(data.data()),
                                   static_cast<int>(data.size()));
  out.resize(static_cast<std::size_t>(size));
  return out;
}

Result<std::string> Base64Decode(std::string_view text) {
  const auto bad = [] { return Error(Code::kInvalidArgument, "it is not base64"); };
  constexpr std::string_view kSpace = " \t\r\n";
  while (!text.empty() && kSpace.find(text.front()) != std::string_view::npos)
    text.remove_prefix(1);
  while (!text.empty() && kSpace.find(text.back()) != std::string_view::npos) text.remove_suffix(1);
  while (text.ends_with('=')) text.remove_suffix(1);
  if (text.size() > static_cast<std::size_t>(std::numeric_limits<int>::max() / 2)) return bad();
  if (text.size() % 4 == 1) return bad();
  std::string padded(text);
  for (const char c : padded) {
    // EVP_DecodeBlock skips white space at the edges and stops at '='; be strict instead.
    const bool known = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '+' || c == '/';
    if (!known) return bad();
  }
  const std::size_t padding = (4 - padded.size() % 4) % 4;
  padded.append(padding, '=');
  std::string out(padded.size() / 4 * 3 + 1, '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                   reinterpret_cast<const unsigned char*>(padded.data()),
                                   static_cast<int>(padded.size()));
  if (size < 0) return bad();
  out.resize(static_cast<std::size_t>(size) - padding);
  return out;
}

}  // namespace davit::registry
