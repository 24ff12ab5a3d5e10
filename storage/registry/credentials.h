#pragma once
// Where credentials come from. Providers are asked again whenever a token has to be renewed, so a
// changed file or secret takes effect without a restart.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/context.h"
#include "common/base/secret.h"

namespace davit::registry {

/// Empty user and password: anonymous. `identity_token`: an OAuth2 refresh token.
struct Credential {
  std::string username;
  Secret password;
  Secret identity_token;
  bool anonymous() const { return username.empty() && password.empty() && identity_token.empty(); }
};

/// Thread-safe.
class CredentialProvider {
 public:
  virtual ~CredentialProvider() = default;
  /// For a registry host ("ghcr.io", "localhost:5000") and repository; anonymous when it has none.
  virtual Result<Credential> Get(const Context& ctx, const std::string& host,
                                 const std::string& repository) = 0;
  /// For a mirror, whose host is not the one of the reference: only what is meant for just this
  /// host. Providers that give the same to every host have nothing for it.
  virtual Result<Credential> GetForOther(const Context& ctx, const std::string& host,
                                         const std::string& repository) {
    return Get(ctx, host, repository);
  }
};

/// Docker's config.json: auths, credHelpers, credsStore. Read again when the file changes.
/// A missing file has no credentials. `path` empty: $DOCKER_CONFIG or ~/.docker/config.json.
std::unique_ptr<CredentialProvider> DockerConfigFile(std::string path = {});
/// The text of a config.json or of the older .dockercfg (a Kubernetes secret's data).
Result<std::unique_ptr<CredentialProvider>> DockerConfigText(const Secret& json);
/// Environment IMAGE_PULL_AUTH: base64 of "user:password", for the host of every reference, and
/// for no mirror; read at each call.
std::unique_ptr<CredentialProvider> EnvironmentAuth();
/// For "docker-credential-NAME get"; the helper gets 30 s.
std::unique_ptr<CredentialProvider> CredentialHelper(std::string name);
/// For the host of every reference, and for no mirror.
std::unique_ptr<CredentialProvider> FixedCredential(Credential credential);
/// The first provider with a credential wins.
std::unique_ptr<CredentialProvider> FirstOf(std::vector<std::unique_ptr<CredentialProvider>> all);

}  // namespace davit::registry
