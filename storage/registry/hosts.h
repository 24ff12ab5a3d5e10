#pragma once
// containerd's registry configuration: DIR/HOST/hosts.toml with mirrors, trust and headers.

#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "storage/registry/endpoint.h"

namespace davit::registry {

/// What is assumed of a host that no file speaks about.
struct HostDefaults {
  http::TlsOptions tls;
  std::string proxy;
  bool plain_http = false;  // this registry host may be spoken to over plain http
};

/// The endpoints of a registry in the order to ask: mirrors, then the registry itself (always the
/// last one and always there). `dirs`: one or more directories, separated by ':'; empty: none.
/// In each, HOST_PORT_, HOST:PORT, HOST and _default are looked for, in this order.
Result<std::vector<Endpoint>> LoadEndpoints(const std::string& dirs, const std::string& host,
                                            const HostDefaults& defaults);

/// Differs when the files that LoadEndpoints() would read have changed, come or gone.
std::string HostsVersion(const std::string& dirs, const std::string& host);

/// The text of one hosts.toml; file names in it are relative to `dir`. kInvalidArgument with the
/// place of the mistake.
Result<std::vector<Endpoint>> ParseHostsToml(std::string_view text, const std::string& dir,
                                             const std::string& host, const HostDefaults& defaults);

/// The registry itself, without any file.
Endpoint DefaultEndpoint(const std::string& host, const HostDefaults& defaults);

/// Names of the directories for a host, in the order of containerd.
std::vector<std::string> HostDirectories(const std::string& host);

}  // namespace davit::registry
