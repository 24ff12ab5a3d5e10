#pragma once
// Texts of sizes and durations, as people write them in configurations and on command lines.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace davit {

/// "4096", "20GiB", "1.5Gi", "500MB": KiB, MiB, GiB, TiB (or Ki, Mi, Gi, Ti) are powers of 1024,
/// kB, MB, GB, TB (or k, M, G, T) of 1000. kInvalidArgument otherwise or above 2^63.
Result<std::uint64_t> ParseSize(std::string_view text);
/// The shortest exact text: "20GiB", "1536KiB", "1000".
std::string FormatSize(std::uint64_t bytes);

/// "500ms", "90s", "1m30s", "2h", "1d"; "0". A number without a unit is refused.
Result<std::chrono::milliseconds> ParseDuration(std::string_view text);
/// "1m30s", "500ms", "0s".
std::string FormatDuration(std::chrono::milliseconds duration);

}  // namespace davit
