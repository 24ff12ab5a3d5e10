#pragma once
// HTTP messages as values, shared by client, servers and tests.

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace davit::http {

/// Ordered; names compare without case.
class Headers {
 public:
  Headers() = default;
  Headers(std::initializer_list<std::pair<std::string, std::string>> items) : items_(items) {}
  /// The first value, or nothing.
  std::optional<std::string_view> Get(std::string_view name) const;
  std::vector<std::string_view> GetAll(std::string_view name) const;
  void Add(std::string name, std::string value) {
    items_.emplace_back(std::move(name), std::move(value));
  }
  /// Replaces all values.
  void Set(std::string_view name, std::string value);
  const std::vector<std::pair<std::string, std::string>>& items() const { return items_; }

 private:
  std::vector<std::pair<std::string, std::string>> items_;
};

/// Which certificates are trusted and shown.
struct TlsOptions {
  std::vector<std::string> ca_files;  // added to the system's; PEM
  std::string client_cert_file;
  std::string client_key_file;
  bool skip_verify = false;
  bool operator==(const TlsOptions&) const = default;
};

/// A body to send in pieces: fills the buffer, 0 at the end. Called on the caller's thread.
struct UploadBody {
  std::uint64_t size = 0;
  /// Bytes from an offset on. Offsets ascend, but for a connection that turned out to be dead and
  /// is replaced: it begins again.
  std::function<Result<std::size_t>(std::uint64_t offset, MutableBytes)> read;
};

struct Request {
  std::string method = "GET";
  std::string url;  // http:// or https://
  Headers headers;
  std::string body;  // sent when not empty and no upload is given
  std::optional<UploadBody> upload;
  TlsOptions tls;
  std::string proxy;        // empty: from the environment, see proxy.h
  std::string unix_socket;  // connect to this socket instead of the URL's host
  std::chrono::milliseconds connect_timeout{5000};
  /// Time without a single byte after which the transfer fails (kDeadlineExceeded).
  std::chrono::milliseconds stall_timeout{20000};
  std::uint64_t max_response_bytes = 16ULL << 20;  // for Do()
};

struct Response {
  int status = 0;
  Headers headers;
  std::string body;
};

/// Parts of a URL that matter for credentials and redirects.
struct Url {
  std::string scheme;      // lower case
  std::string host;        // lower case, without port; IPv6 without brackets
  std::uint16_t port = 0;  // explicit or the scheme's default
  std::string path;        // "/..." with query
  static Result<Url> Parse(std::string_view text);
  std::string ToString() const;
  /// scheme://host:port, the unit to which credentials belong.
  std::string Origin() const;
  /// Resolves a Location header against this URL (absolute or relative).
  Result<Url> Resolve(std::string_view location) const;
};

/// Percent-encodes everything but unreserved characters.
std::string UrlEncode(std::string_view text);

/// "Retry-After": seconds, or a date relative to `now`; nothing when unusable. Capped at an hour.
std::optional<std::chrono::seconds> ParseRetryAfter(std::string_view value,
                                                    std::chrono::system_clock::time_point now);

/// "Content-Range: bytes a-b/total"; total may be "*". kDataLoss when malformed.
struct ContentRange {
  ByteRange range;
  std::optional<std::uint64_t> total;
  static Result<ContentRange> Parse(std::string_view value);
};

}  // namespace davit::http
