#include <charconv>
#include <optional>

#include "csi/core/mounter.h"

namespace davit::csi {
namespace {

// The kernel writes space, tab, newline and backslash as \ooo.
std::string Unescape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto octal = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      const int value = (text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0');
      out.push_back(static_cast<char>(value));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::string_view NextField(std::string_view& line) {
  const std::size_t space = line.find(' ');
  const std::string_view field = line.substr(0, space);
  line = space == std::string_view::npos ? std::string_view{} : line.substr(space + 1);
  return field;
}

std::optional<std::uint64_t> ParseDevice(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  const char* middle = text.data() + colon;
  const char* end = text.data() + text.size();
  const auto whole = [](const char* from, const char* to, std::uint32_t& value) {
    const auto result = std::from_chars(from, to, value);
    return result.ec == std::errc() && result.ptr == to;
  };
  if (!whole(text.data(), middle, major) || !whole(middle + 1, end, minor)) return std::nullopt;
  return (std::uint64_t{major} << 32) | minor;
}

std::optional<MountEntry> ParseLine(std::string_view line) {
  NextField(line);  // id
  NextField(line);  // parent
  const auto device = ParseDevice(NextField(line));
  NextField(line);  // root
  MountEntry entry;
  entry.path = Unescape(NextField(line));
  entry.options = std::string(NextField(line));
  // Optional fields end with "-".
  while (!line.empty() && NextField(line) != "-") {
  }
  entry.fs_type = Unescape(NextField(line));
  entry.source = Unescape(NextField(line));
  if (!device || entry.path.empty() || entry.path[0] != '/' || entry.fs_type.empty()) {
    return std::nullopt;
  }
  entry.device = *device;
  return entry;
}

}  // namespace

std::vector<MountEntry> ParseMountInfo(std::string_view text) {
  std::vector<MountEntry> out;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (auto entry = ParseLine(text.substr(0, end))) out.push_back(*std::move(entry));
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
  }
  return out;
}

const MountEntry* FindMount(const std::vector<MountEntry>& mounts, std::string_view path) {
  // A later line on the same path covers an earlier one.
  for (auto it = mounts.rbegin(); it != mounts.rend(); ++it) {
    if (it->path == path) return &*it;
  }
  return nullptr;
}

}  // namespace davit::csi
