#pragma once
// The one place that includes toml++. It is a library of headers with inline functions: two source
// files that compile it with different settings get a mixture of both at run time. Included from
// .cc files only, for what it costs to compile.

#include <fmt/format.h>

#include <stdexcept>
#include <string_view>

#include "common/base/result.h"

namespace davit {

/// toml++ 3.3 asserts on some malformed texts ("[[[["). Its assertions become exceptions, whatever
/// the build type.
constexpr void CheckTomlAssertion(bool holds) {
  if (!holds) throw std::logic_error("malformed TOML");
}

}  // namespace davit

#undef NDEBUG
#define TOML_ASSERT(expr) ::davit::CheckTomlAssertion(static_cast<bool>(expr))
#define TOML_EXCEPTIONS 1
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace davit {

/// kInvalidArgument, with the line where one is known. Nothing of toml++ is thrown further.
inline Result<toml::table> ParseToml(std::string_view text) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    return Error(Code::kInvalidArgument,
                 fmt::format("line {}: {}", error.source().begin.line, error.description()));
  } catch (const std::exception& error) {
    return Error(Code::kInvalidArgument, error.what());
  }
}

}  // namespace davit
