#pragma once
// Names of calls, by which the log lines of all that one call caused can be found.

#include <string>
#include <string_view>

namespace davit {

/// The HTTP header that carries it, and (in lower case) the gRPC metadata.
inline constexpr std::string_view kRequestIdHeader = "X-Request-Id";

/// 16 hexadecimal digits, never the same again.
std::string NewRequestId();
/// `given` when a caller may name its call so (1..128 of [A-Za-z0-9._:-]), else a new one.
std::string RequestIdOf(std::string_view given);

}  // namespace davit
