#pragma once
// Which proxy a request goes through.

#include <string>
#include <string_view>

namespace davit::http {

struct Proxy {
  std::string url;   // empty: none
  std::string from;  // who says so, for messages: "the configuration" or a variable's name
};

/// `configured`, else the environment's for the scheme: http_proxy or HTTP_PROXY, https_proxy or
/// HTTPS_PROXY, then all_proxy or ALL_PROXY. Hosts in no_proxy or NO_PROXY are libcurl's business:
/// they are reached directly whoever named the proxy.
Proxy ChooseProxy(const std::string& configured, std::string_view scheme);

/// For messages: without user:password.
std::string ShownProxy(const std::string& url);

}  // namespace davit::http
