#pragma once
// What a mistyped word was meant to be.

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace davit {

enum class Case { kSensitive, kIgnored };  // of ASCII letters

/// Letters to insert, drop or replace to get from one to the other (Levenshtein). Time and memory
/// grow with the product of the lengths: cut untrusted words before.
std::size_t EditDistance(std::string_view a, std::string_view b, Case letters = Case::kSensitive);

/// The first of those that are nearest, if it is near enough to be meant: a third of the word's
/// letters, at least two, may differ. Nothing for words above 128 letters.
std::optional<std::string> Nearest(std::string_view word, std::span<const std::string> candidates);

}  // namespace davit
