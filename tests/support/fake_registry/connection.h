#pragma once
// One HTTP/1.1 connection on a raw socket: what a fake needs to be able to do wrong.

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "common/base/fd.h"
#include "tests/support/fake_registry/link.h"

namespace davit::testing {

struct WireRequest {
  std::string method, path, query;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  std::string Header(const std::string& name) const;
  /// A query parameter, decoded; empty when missing.
  std::string Param(const std::string& name) const;
};

/// A body: text, or a range of a file.
struct WireBody {
  std::string text;
  std::string file;
  std::uint64_t offset = 0, size = 0;  // of the file
  std::uint64_t length() const { return file.empty() ? text.size() : size; }
};

struct WireResponse {
  int status = 200;
  std::map<std::string, std::string> headers;
  WireBody body;
  std::uint64_t claim = 0;           // Content-Length, when it is not the body's
  std::optional<std::uint64_t> cut;  // stop after so many bytes
  bool reset = false;                // and reset the connection then
  std::uint64_t drip = 0;            // bytes per second, 0: the link's
  bool hang = false;
  bool close = false;
};

class Connection {
 public:
  Connection(UniqueFd fd, Link& link) : fd_(std::move(fd)), link_(link) {}
  int fd() const { return fd_.get(); }
  /// Nothing at the end of the connection or on malformed input.
  std::optional<WireRequest> Read();
  /// False when the connection is no longer usable. `sent` counts body bytes.
  bool Write(const WireResponse& response, bool head, std::uint64_t& sent);

 private:
  bool SendAll(const char* data, std::size_t size);
  bool SendBody(const WireResponse& response, std::uint64_t limit, std::uint64_t& sent);

  UniqueFd fd_;
  Link& link_;
  std::string input_;
};

}  // namespace davit::testing
