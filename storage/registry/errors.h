#pragma once
// From HTTP replies of registries to errors.

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "common/http/message.h"

namespace davit::registry {

/// An error for a reply whose status is not what was hoped for. Quotes the registry's own code and
/// message (cleaned and shortened); carries Retry-After.
Error ErrorFromReply(const http::Response& reply, std::string_view what,
                     std::chrono::system_clock::time_point now);
/// Its Retry-After, up to storage::kMaxRetryAfter; nothing when there is none that can be used.
std::optional<std::chrono::seconds> RetryAfterOf(const http::Response& reply,
                                                 std::chrono::system_clock::time_point now);
/// Statuses that say "later": 408, 429, 499, 500, 502, 503, 504, 522.
bool IsTransientStatus(int status);
/// Whether asking again may help.
bool IsTransient(const Error& error);
/// Printable and short: it comes from the other side and ends in logs and on terminals.
std::string CleanText(std::string_view text);
/// For messages: without user info, query and fragment; at most 200 bytes.
std::string ShownUrl(std::string_view url);

}  // namespace davit::registry
