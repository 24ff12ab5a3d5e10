#include "common/base/request_id.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <random>

namespace davit {

std::string NewRequestId() {
  // A random start tells processes apart; an odd step makes a full period of 2^64.
  static std::atomic<std::uint64_t> next{[] {
    std::random_device device;
    return (static_cast<std::uint64_t>(device()) << 32) | device();
  }()};
  return fmt::format("{:016x}", next.fetch_add(0x9e3779b97f4a7c15ULL, std::memory_order_relaxed));
}

std::string RequestIdOf(std::string_view given) {
  const auto allowed = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == ':' ||
           c == '-';
  };
  if (!given.empty() && given.size() <= 128 && std::ranges::all_of(given, allowed)) {
    return std::string(given);
  }
  return NewRequestId();
}

}  // namespace davit
