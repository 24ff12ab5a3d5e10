#pragma once
// Structured logs. One line per event: time, level, message, key=value fields (text) or one JSON
// object. An error is logged once, where it is handled.

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.h"

namespace davit::log {

enum class Level { kTrace, kDebug, kInfo, kWarn, kError, kOff };
Result<Level> ParseLevel(std::string_view name);
std::string_view LevelName(Level level);

/// One key with its value. Values are text or numbers; never secrets (see secret.h).
struct Field {
  Field(std::string_view k, std::string_view v) : key(k), text(v) {}
  Field(std::string_view k, const std::string& v) : key(k), text(v) {}
  Field(std::string_view k, const char* v) : key(k), text(v) {}
  Field(std::string_view k, bool v) : key(k), text(v ? "true" : "false"), quoted(false) {}
  Field(std::string_view k, const Error& e) : key(k), text(e.ToString()) {}
  template <class T>
    requires std::is_arithmetic_v<T>
  Field(std::string_view k, T v) : key(k), text(std::to_string(v)), quoted(false) {}
  std::string key;
  std::string text;
  bool quoted = true;
};

struct Options {
  Level level = Level::kInfo;
  bool json = false;
  /// Empty: standard error. Otherwise this file, rotated at `rotate_bytes`, `keep_files` kept
  /// (FILE.1 is the newest). While it cannot be written, lines go to standard error.
  std::string file;
  std::uint64_t rotate_bytes = 64ULL << 20;
  int keep_files = 5;
};

/// Sets the process-wide sink; thread-safe, may be called again. Default: text, info, stderr.
Status Configure(const Options& options);
void SetLevel(Level level);
Level GetLevel();

using Fields = std::initializer_list<Field>;
void Write(Level level, std::string_view message, Fields fields = {});
inline void Trace(std::string_view m, Fields f = {}) { Write(Level::kTrace, m, f); }
inline void Debug(std::string_view m, Fields f = {}) { Write(Level::kDebug, m, f); }
inline void Info(std::string_view m, Fields f = {}) { Write(Level::kInfo, m, f); }
inline void Warn(std::string_view m, Fields f = {}) { Write(Level::kWarn, m, f); }
inline void Error(std::string_view m, Fields f = {}) { Write(Level::kError, m, f); }

/// Adds fields (request, volume, image) to every line this thread writes while it lives. A line has
/// each key once: its own field, or that of the innermost scope.
class Scope {
 public:
  Scope(Fields fields);
  explicit Scope(const std::vector<Field>& fields);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  std::size_t count_;
};

/// The fields of the calling thread's scopes, for a thread that goes on with its work. Tasks of a
/// ThreadPool have those of who submitted them.
std::vector<Field> ScopeFields();
/// The value that a scope of the calling thread gives a key; empty when none does.
std::string ScopeValue(std::string_view key);

}  // namespace davit::log
