#pragma once
// How toml++ is compiled. It is a library of headers with inline functions: two source files that
// compile it with different settings get a mixture of both at run time. So whoever includes
// <toml++/toml.h> includes this first, in a .cc file.

#include <stdexcept>

namespace davit {

/// toml++ 3.3 asserts on some malformed texts ("[[[["). Its assertions become exceptions, which the
/// caller of toml::parse catches, whatever the build type.
constexpr void CheckTomlAssertion(bool holds) {
  if (!holds) throw std::logic_error("malformed TOML");
}

}  // namespace davit

#undef NDEBUG
#define TOML_ASSERT(expr) ::davit::CheckTomlAssertion(static_cast<bool>(expr))
#define TOML_EXCEPTIONS 1
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
