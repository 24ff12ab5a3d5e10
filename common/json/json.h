#pragma once
// Bounded, exception-free access to untrusted JSON. Headers use json_fwd.hpp only.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace davit::json {

/// kInvalidArgument, naming `what` and the position, for malformed text, text over `limit` bytes
/// or nesting deeper than 64.
Result<nlohmann::json> Parse(std::string_view text, std::string_view what,
                             std::size_t limit = 8ULL << 20);

/// Members of an object. A missing member is nothing; one of another type is kInvalidArgument.
Result<std::optional<std::string>> GetString(const nlohmann::json& object, std::string_view key);
Result<std::optional<std::uint64_t>> GetUint(const nlohmann::json& object, std::string_view key);
Result<std::optional<bool>> GetBool(const nlohmann::json& object, std::string_view key);
/// A member that must be there.
Result<std::string> NeedString(const nlohmann::json& object, std::string_view key);
Result<std::uint64_t> NeedUint(const nlohmann::json& object, std::string_view key);
/// The member when it is an object or array, nullptr when it is missing or null.
Result<const nlohmann::json*> GetObject(const nlohmann::json& object, std::string_view key);
Result<const nlohmann::json*> GetArray(const nlohmann::json& object, std::string_view key);

/// Compact text; bytes that are not UTF-8 become U+FFFD (never throws).
std::string Dump(const nlohmann::json& value, int indent = -1);

}  // namespace davit::json
