#include "tests/support/fake_registry/connection.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <thread>

namespace davit::testing {
namespace {

constexpr std::size_t kMaxHeader = 64U << 10;

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string Decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    int value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16).ec == std::errc()) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::string WireRequest::Header(const std::string& name) const {
  const auto it = headers.find(name);
  return it == headers.end() ? std::string() : it->second;
}

std::string WireRequest::Param(const std::string& name) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('&'), rest.size());
    const std::string_view item = rest.substr(0, end);
    const std::size_t equals = std::min(item.find('='), item.size());
    if (item.substr(0, equals) == name)
      return Decode(item.substr(std::min(equals + 1, item.size())));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return {};
}

std::optional<WireRequest> Connection::Read() {
  std::size_t end = 0;
  char buffer[16384];
  while ((end = input_.find("\r\n\r\n")) == std::string::npos) {
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n <= 0 || input_.size() > kMaxHeader) return std::nullopt;
    input_.append(buffer, static_cast<std::size_t>(n));
  }
  WireRequest request;
  std::string_view head = std::string_view(input_).substr(0, end);
  const std::string_view first = head.substr(0, head.find("\r\n"));
  const std::size_t a = first.find(' ');
  const std::size_t b = first.rfind(' ');
  if (a == std::string_view::npos || b <= a) return std::nullopt;
  request.method = first.substr(0, a);
  const std::string target(first.substr(a + 1, b - a - 1));
  const std::size_t question = std::min(target.find('?'), target.size());
  request.path = Decode(target.substr(0, question));
  if (question < target.size()) request.query = target.substr(question + 1);
  for (std::size_t at = first.size(); at < head.size();) {
    at += 2;
    const std::string_view line =
        head.substr(at, std::min(head.find("\r\n", at), head.size()) - at);
    const std::size_t colon = line.find(':');
    if (colon != std::string_view::npos) {
      std::string_view value = line.substr(colon + 1);
      while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
      request.headers[Lower(line.substr(0, colon))] = value;
    }
    at += line.size();
  }
  input_.erase(0, end + 4);
  std::size_t length = 0;
  const std::string text = request.Header("content-length");
  std::from_chars(text.data(), text.data() + text.size(), length);
  while (input_.size() < length) {
    const ssize_t n = ::recv(fd_.get(), buffer, std::min(sizeof buffer, length - input_.size()), 0);
    if (n <= 0) return std::nullopt;
    input_.append(buffer, static_cast<std::size_t>(n));
  }
  request.body = input_.substr(0, length);
  input_.erase(0, length);
  return request;
}

bool Connection::SendAll(const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::send(fd_.get(), data, size, MSG_NOSIGNAL);
    if (n <= 0) return false;
    data += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

bool Connection::SendBody(const WireResponse& response, std::uint64_t limit, std::uint64_t& sent) {
  UniqueFd file;
  if (!response.body.file.empty()) {
    auto opened = OpenFile(response.body.file, O_RDONLY);
    if (!opened.ok()) return false;
    file = *std::move(opened);
  }
  auto offset = static_cast<off_t>(response.body.offset);
  while (sent < limit) {
    std::uint64_t n = std::min<std::uint64_t>(link_.slice(), limit - sent);
    if (response.drip > 0) {
      n = std::min(n, std::max<std::uint64_t>(1, response.drip / 20));
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    link_.Pass(n);
    if (file) {
      const ssize_t done = ::sendfile(fd_.get(), file.get(), &offset, n);
      if (done <= 0) return false;
      sent += static_cast<std::uint64_t>(done);
    } else {
      if (!SendAll(response.body.text.data() + sent, n)) return false;
      sent += n;
    }
  }
  return true;
}

bool Connection::Write(const WireResponse& response, bool head, std::uint64_t& sent) {
  std::string text = fmt::format("HTTP/1.1 {} X\r\n", response.status);
  for (const auto& [name, value] : response.headers) text += fmt::format("{}: {}\r\n", name, value);
  const std::uint64_t length = response.claim > 0 ? response.claim : response.body.length();
  if (!response.headers.contains("Content-Length"))
    text += fmt::format("Content-Length: {}\r\n", length);
  if (response.close) text += "Connection: close\r\n";
  text += "\r\n";
  // More to come: the header and the first piece leave in one packet.
  if (!SendAll(text.data(), text.size())) return false;
  if (head) return !response.close;
  const std::uint64_t limit = std::min(response.body.length(), response.cut.value_or(UINT64_MAX));
  if (!SendBody(response, limit, sent)) return false;
  if (response.reset) {
    const linger hard{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    return false;
  }
  return !response.cut && !response.close;
}

}  // namespace davit::testing
