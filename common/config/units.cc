#include "common/config/units.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

namespace davit {
namespace {

struct SizeUnit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr std::array<SizeUnit, 18> kSizeUnits{{{"", 1},
                                               {"B", 1},
                                               {"KiB", 1ULL << 10},
                                               {"Ki", 1ULL << 10},
                                               {"MiB", 1ULL << 20},
                                               {"Mi", 1ULL << 20},
                                               {"GiB", 1ULL << 30},
                                               {"Gi", 1ULL << 30},
                                               {"TiB", 1ULL << 40},
                                               {"Ti", 1ULL << 40},
                                               {"kB", 1'000},
                                               {"k", 1'000},
                                               {"MB", 1'000'000},
                                               {"M", 1'000'000},
                                               {"GB", 1'000'000'000},
                                               {"G", 1'000'000'000},
                                               {"TB", 1'000'000'000'000},
                                               {"T", 1'000'000'000'000}}};

struct TimeUnit {
  std::string_view name;
  std::int64_t ms;
};
constexpr std::array<TimeUnit, 5> kTimeUnits{
    {{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}}};

Error BadSize(std::string_view text) {
  return Error(Code::kInvalidArgument, fmt::format("\"{}\" is not a size", text))
      .WithHint("write a number with a unit, for example 20GiB, 512MiB or 500MB");
}

Error BadDuration(std::string_view text, std::string_view why) {
  return Error(Code::kInvalidArgument, fmt::format("\"{}\" is not a duration: {}", text, why))
      .WithHint("write for example 500ms, 90s, 1m30s or 2h");
}

// A number at the front of `rest`, which is shortened; false when there is none.
bool TakeNumber(std::string_view& rest, double& out) {
  if (rest.empty() || rest.front() < '0' || rest.front() > '9') return false;
  const auto [end, ec] =
      std::from_chars(rest.data(), rest.data() + rest.size(), out, std::chars_format::fixed);
  if (ec != std::errc{}) return false;
  rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
  return true;
}

}  // namespace

Result<std::uint64_t> ParseSize(std::string_view text) {
  // Whole numbers exactly; only fractions go through floating point.
  std::uint64_t whole = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), whole);
  if (ec != std::errc{}) return BadSize(text);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  double fraction = 0;
  const bool fractional = unit.starts_with('.');
  if (fractional) {
    std::string_view rest = text;
    if (!TakeNumber(rest, fraction)) return BadSize(text);
    unit = rest;
  }
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  for (const SizeUnit& known : kSizeUnits) {
    if (known.name != unit) continue;
    if (fractional) {
      const double value = std::round(fraction * static_cast<double>(known.factor));
      if (value >= 9.2e18 || known.factor == 1) return BadSize(text);
      return static_cast<std::uint64_t>(value);
    }
    std::uint64_t value = 0;
    if (__builtin_mul_overflow(whole, known.factor, &value) || value >> 63 != 0) {
      return BadSize(text);
    }
    return value;
  }
  return BadSize(text);
}

std::string FormatSize(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 5> kNames{"", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < kNames.size()) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{}{}", bytes, kNames[unit]);
}

Result<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  if (text == "0") return std::chrono::milliseconds(0);
  std::string_view rest = text;
  double total = 0;
  std::int64_t last_unit = INT64_MAX;
  if (rest.empty()) return BadDuration(text, "it is empty");
  while (!rest.empty()) {
    double number = 0;
    if (!TakeNumber(rest, number)) return BadDuration(text, "a number is missing");
    const std::size_t length = rest.find_first_of("0123456789.");
    const std::string_view name = rest.substr(0, length);
    const TimeUnit* unit = nullptr;
    for (const TimeUnit& known : kTimeUnits) {
      if (known.name == name) unit = &known;
    }
    if (name.empty()) return BadDuration(text, "a unit is missing");
    if (unit == nullptr) return BadDuration(text, fmt::format("\"{}\" is no unit", name));
    if (unit->ms >= last_unit) return BadDuration(text, "units must go from large to small");
    last_unit = unit->ms;
    total += number * static_cast<double>(unit->ms);
    rest.remove_prefix(name.size());
  }
  if (total > 3.2e12) return BadDuration(text, "it is longer than a hundred years");
  return std::chrono::milliseconds(std::llround(total));
}

std::string FormatDuration(std::chrono::milliseconds duration) {
  std::int64_t left = duration.count();
  if (left == 0) return "0s";
  std::string out;
  for (const TimeUnit& unit : kTimeUnits) {
    if (left < unit.ms) continue;
    out += fmt::format("{}{}", left / unit.ms, unit.name);
    left %= unit.ms;
  }
  return out;
}

}  // namespace davit
