#include "rafs/builder/pax_record.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>

#include "common/base/bytes.h"

namespace davit::rafs {
namespace {

constexpr std::size_t kBlock = 512;

/// The number at the beginning of a text, and how long it is.
std::optional<std::pair<std::uint64_t, std::size_t>> Number(std::string_view text, int base) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc()) return std::nullopt;
  return std::pair(value, static_cast<std::size_t>(end - text.data()));
}

/// Records are "<length> <name>=<value>\n"; the length counts itself.
std::string FindRecord(std::string_view records, std::string_view name) {
  std::string found;
  while (!records.empty()) {
    const auto length = Number(records, 10);
    if (!length || length->first > records.size() || length->first < length->second + 2) break;
    std::string_view record = records.substr(0, static_cast<std::size_t>(length->first));
    records.remove_prefix(record.size());
    if (record.back() != '\n' || record[length->second] != ' ') break;
    record = record.substr(length->second + 1);
    record.remove_suffix(1);
    if (record.starts_with(name) && record.substr(name.size()).starts_with('=')) {
      found = record.substr(name.size() + 1);
    }
  }
  return found;
}

}  // namespace

std::string PaxRecord(std::string_view headers, std::string_view name) {
  while (headers.size() >= kBlock) {
    if (headers.substr(257, 5) != "ustar") break;
    const char type = headers[156];
    if (std::string_view("xgLK").find(type) == std::string_view::npos) break;
    std::string_view field = headers.substr(124, 12);
    field.remove_prefix(std::min(field.find_first_not_of(' '), field.size()));
    const auto size = Number(field, 8);
    if (!size || size->first > headers.size() - kBlock) break;
    const auto length = static_cast<std::size_t>(size->first);
    if (type == 'x') return FindRecord(headers.substr(kBlock, length), name);
    const std::size_t next = kBlock + AlignUp(length, kBlock);
    headers.remove_prefix(std::min(next, headers.size()));
  }
  return {};
}

}  // namespace davit::rafs
