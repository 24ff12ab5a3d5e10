#pragma once
// Registry authentication: challenges of 401 replies, Basic, and bearer tokens that are kept per
// (host, credential, scope), fetched once at a time and renewed before they expire.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/context.h"
#include "common/base/secret.h"
#include "common/base/sync.h"
#include "common/http/client.h"
#include "storage/registry/credentials.h"
#include "storage/registry/endpoint.h"

namespace davit::registry {

/// One challenge of a WWW-Authenticate header.
struct Challenge {
  std::string scheme;                         // lower case
  std::map<std::string, std::string> params;  // names in lower case
  bool operator==(const Challenge&) const = default;
};

/// All challenges of one header value. What cannot be understood is left out; never fails. At most
/// 8 KiB are read.
std::vector<Challenge> ParseChallenges(std::string_view header);

/// Whether a token may be asked for at `realm`: https unless the registry itself is spoken to over
/// plain http, no user info, and no link-local address unless the registry is one itself.
Status CheckRealm(const http::Url& registry, const std::string& realm);
/// 169.254/16, fe80::/10 and the cloud's metadata names, in all the spellings that resolvers take.
bool IsLinkLocal(std::string_view host);

/// "repository:NAME:pull[,push]".
std::string RepositoryScope(std::string_view repository, std::string_view actions);

/// Tokens and the challenges of registries; shared by all repositories. Thread-safe.
class TokenCache {
 public:
  TokenCache(http::Client& http, Clock& clock) : http_(http), clock_(clock) {}

  /// Value of the Authorization header for a request, or an empty secret when none is known to be
  /// needed. `scope`: space-separated scopes.
  Result<Secret> Authorization(const Context& ctx, const Endpoint& endpoint,
                               const Credential& credential, const std::string& scope);
  /// After a 401 with `headers` to a request that carried `used`: learns the challenge and returns
  /// the value for another try; kUnauthenticated when there is nothing better to send.
  Result<Secret> AfterUnauthorized(const Context& ctx, const Endpoint& endpoint,
                                   const Credential& credential, const std::string& scope,
                                   const http::Headers& headers, const Secret& used);

 private:
  struct Token {
    Secret header;
    TimePoint refresh_at;
    TimePoint expires_at;
  };
  struct Slot {
    bool fetching = false;
    std::optional<Token> token;
    std::uint64_t last_use = 0;
  };

  Result<Secret> Bearer(const Context& ctx, const Endpoint& endpoint, const Credential& credential,
                        const std::string& scope, const Challenge& challenge,
                        const Secret* rejected);
  Result<Token> Fetch(const Context& ctx, const Endpoint& endpoint, const Credential& credential,
                      const std::string& scope, const Challenge& challenge);
  std::shared_ptr<Slot> SlotFor(const std::string& key) DAVIT_REQUIRES(mutex_);

  http::Client& http_;
  Clock& clock_;
  Mutex mutex_;
  CondVar fetched_;
  std::map<std::string, Challenge> challenges_ DAVIT_GUARDED_BY(mutex_);  // by origin
  std::map<std::string, std::shared_ptr<Slot>> slots_ DAVIT_GUARDED_BY(mutex_);
  std::uint64_t use_counter_ DAVIT_GUARDED_BY(mutex_) = 0;
};

}  // namespace davit::registry
