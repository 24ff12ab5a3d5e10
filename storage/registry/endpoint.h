#pragma once
// One place that serves a registry's repositories: the registry itself or a mirror of it.

#include <string>

#include "common/http/message.h"

namespace davit::registry {

struct Endpoint {
  http::Url url;  // with the API's root as path, e.g. "/v2"; no slash at its end
  http::TlsOptions tls;
  http::Headers headers;        // from hosts.toml; only ever sent to this origin
  std::string credential_host;  // key for credential providers ("docker.io", "localhost:5000")
  bool own_host = false;        // the reference's: credentials of no certain host are for it only
  std::string proxy;
  std::string ns;  // mirrors are told which registry is meant (?ns=)
  bool mirror = false;
  bool can_pull = true;     // content by digest
  bool can_resolve = true;  // tags

  std::string Origin() const { return url.Origin(); }
};

}  // namespace davit::registry
