#pragma once
// Base64 as Basic authentication and Docker's config.json use it. OpenSSL stays in base64.cc.

#include <string>
#include <string_view>

#include "common/base/result.h"

namespace davit::registry {

std::string Base64Encode(std::string_view data);
/// Standard alphabet; missing padding and surrounding white space are accepted. kInvalidArgument
/// otherwise; the message never quotes the text, which is a secret more often than not.
Result<std::string> Base64Decode(std::string_view text);

}  // namespace davit::registry
