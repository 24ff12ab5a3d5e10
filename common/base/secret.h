#pragma once
// A string that cannot be printed by accident: no stream or format operator, redacted in JSON.

#include <string>
#include <utility>

namespace davit {

/// Passwords, tokens, keys. Only code that sends it over the wire calls Reveal().
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string value) : value_(std::move(value)) {}
  const std::string& Reveal() const { return value_; }
  bool empty() const { return value_.empty(); }
  bool operator==(const Secret&) const = default;

 private:
  std::string value_;
};

/// What stands in logs, config dumps and API replies instead of a secret.
inline constexpr const char* kRedacted = "<redacted>";

}  // namespace davit
