#include "common/http/proxy.h"

#include <cstdlib>

namespace davit::http {

Proxy ChooseProxy(const std::string& configured, std::string_view scheme) {
  if (!configured.empty()) return {configured, "the configuration"};
  const bool https = scheme == "https";
  for (const char* name : {https ? "https_proxy" : "http_proxy",
                           https ? "HTTPS_PROXY" : "HTTP_PROXY", "all_proxy", "ALL_PROXY"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    // A CGI program's HTTP_PROXY is a header that its client has sent ("Proxy:").
    if (std::string_view(name) == "HTTP_PROXY" && std::getenv("REQUEST_METHOD") != nullptr)
      continue;
    return {value, name};
  }
  return {};
}

std::string ShownProxy(const std::string& url) {
  const std::size_t scheme = url.find("://");
  const std::size_t start = scheme == std::string::npos ? 0 : scheme + 3;
  const std::size_t at = url.find_last_of('@', url.find('/', start));
  if (at == std::string::npos || at < start) return url;
  return url.substr(0, start) + url.substr(at + 1);
}

}  // namespace davit::http
