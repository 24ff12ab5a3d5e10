#include "common/base/nearest.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace davit {
namespace {

constexpr std::size_t kLongest = 128;

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

std::size_t EditDistance(std::string_view a, std::string_view b, Case letters) {
  const auto same = [letters](char x, char y) {
    return letters == Case::kIgnored ? Lower(x) == Lower(y) : x == y;
  };
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replace = diagonal + (same(a[i], b[j]) ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replace, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

std::optional<std::string> Nearest(std::string_view word, std::span<const std::string> candidates) {
  if (word.size() > kLongest) return std::nullopt;
  std::size_t best = SIZE_MAX;
  const std::string* found = nullptr;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = EditDistance(word, candidate);
    if (distance < best) {
      best = distance;
      found = &candidate;
    }
  }
  if (found == nullptr || best > std::max<std::size_t>(2, word.size() / 3)) return std::nullopt;
  return *found;
}

}  // namespace davit
