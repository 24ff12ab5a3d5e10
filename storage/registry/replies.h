#pragma once
// Readers of what registries, token servers and credential helpers say. None of it is trusted.

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/secret.h"
#include "common/http/message.h"
#include "storage/registry/credentials.h"

namespace davit::registry {

/// A token server's reply.
struct Grant {
  Secret header;  // value of Authorization
  std::chrono::seconds life;
};
/// kUnauthenticated when it holds no token of printable characters. The life is 1 s to 12 h.
Result<Grant> ParseGrant(std::string_view body);

/// "CODE: message" of {"errors":[{code,message}]} or of a token server's {"details"/"error"};
/// empty when there is nothing of the kind. At most about 200 bytes, without control characters.
std::string RegistryText(std::string_view body);

/// A page of tags.
Result<std::vector<std::string>> ParseTags(std::string_view body);

/// The target of `<…>; rel="next"` among the Link headers, or nothing.
std::optional<std::string> NextLink(const http::Headers& headers);

/// What "docker-credential-NAME get" has written.
Result<Credential> ParseHelperOutput(std::string_view program, std::string_view output);

}  // namespace davit::registry
