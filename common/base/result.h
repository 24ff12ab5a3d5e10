#pragma once
// Errors as values. Every function that can fail because of the outside world returns Result<T>;
// exceptions do not cross module borders. errno, gRPC and HTTP codes exist only at the edges.

#include <chrono>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace davit {

/// What kind of failure it is, for code that has to branch on it (and for mapping at the edges).
enum class Code {
  kInvalidArgument,     // the caller's words are wrong; asking again will not help
  kNotFound,            // the named thing does not exist
  kAlreadyExists,       // it exists and differs from what was asked
  kPermissionDenied,    // authenticated, but not allowed
  kUnauthenticated,     // credentials are missing, wrong or expired
  kUnavailable,         // the other side is away or overloaded; try again later
  kDeadlineExceeded,    // the time given by the caller or by configuration is over
  kResourceExhausted,   // disk, memory, descriptors or a quota are used up
  kCancelled,           // the caller has lost interest
  kDataLoss,            // bytes do not match their digest, or stored state is damaged
  kUnsupported,         // valid, but this build, kernel or version cannot do it
  kFailedPrecondition,  // not possible in the present state
  kAborted,             // another operation on the same thing is in progress
  kInternal,            // an I/O error of the machine, or a defect
};

/// Lower-case name of a code, e.g. "not_found"; for logs and JSON.
std::string_view CodeName(Code code);

/// One failure: what happened, why, and what the user can do about it. Value type.
class Error {
 public:
  Error(Code code, std::string message, int sys_errno = 0)
      : code_(code), errno_(sys_errno), message_(std::move(message)) {}

  /// From errno; `what` names the action and the thing ("open /x/y"). The code is derived.
  static Error FromErrno(int sys_errno, std::string_view what);

  Code code() const { return code_; }
  /// errno of the failing system call, or 0.
  int sys_errno() const { return errno_; }
  /// What and why, without the hint.
  const std::string& message() const { return message_; }
  /// The next step for the user; may be empty.
  const std::string& hint() const { return hint_; }

  /// Puts "outer: " in front of the message; keeps code, errno and hint.
  Error WithContext(std::string_view outer) &&;
  /// Sets the next step unless an inner layer, which knows more, has set one.
  Error WithHint(std::string_view hint) &&;
  /// When the other side asked to be left alone until (Retry-After).
  Error WithRetryAfter(std::chrono::seconds wait) &&;
  std::optional<std::chrono::seconds> retry_after() const { return retry_after_; }
  /// Replaces the code; for edges that know better what a failure means to the caller.
  Error WithCode(Code code) &&;

  /// "message" or "message (hint)"; what users see.
  std::string ToString() const;

 private:
  Code code_;
  int errno_;
  std::string message_;
  std::string hint_;
  std::optional<std::chrono::seconds> retry_after_;
};

/// A value or an Error. `return value;`, `return Error(...);`, `if (!r) ... r.error()`.
template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
  using Base = std::expected<T, Error>;

 public:
  using Base::Base;
  // NOLINTNEXTLINE(google-explicit-constructor): "return Error(...);" is the point of Result
  Result(Error error) : Base(std::unexpect, std::move(error)) {}
  bool ok() const { return this->has_value(); }
};

/// Success or an Error.
using Status = Result<void>;

/// The errno that FUSE and other POSIX edges report for an error (never 0).
int ToErrno(const Error& error);

}  // namespace davit

#define DAVIT_CONCAT_INNER_(a, b) a##b
#define DAVIT_CONCAT_(a, b) DAVIT_CONCAT_INNER_(a, b)

/// Returns the error of a Result-valued expression from the enclosing function.
#define DAVIT_TRY(expr) DAVIT_TRY_(DAVIT_CONCAT_(davit_status_, __COUNTER__), expr)
#define DAVIT_TRY_(tmp, expr)                  \
  do {                                         \
    if (auto tmp = (expr); !tmp.has_value()) { \
      return std::move(tmp).error();           \
    }                                          \
  } while (false)

/// DAVIT_TRY_ASSIGN(auto x, F()): declares or assigns x from a Result, or returns its error.
#define DAVIT_TRY_ASSIGN(lhs, expr) \
  DAVIT_TRY_ASSIGN_(DAVIT_CONCAT_(davit_result_, __COUNTER__), lhs, expr)
#define DAVIT_TRY_ASSIGN_(tmp, lhs, expr)              \
  auto tmp = (expr);                                   \
  if (!tmp.has_value()) return std::move(tmp).error(); \
  lhs = *std::move(tmp)
