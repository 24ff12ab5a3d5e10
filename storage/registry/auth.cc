#include "storage/registry/auth.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/log.h"
#include "common/digest/digest.h"
#include "storage/registry/base64.h"
#include "storage/registry/errors.h"
#include "storage/registry/replies.h"

namespace davit::registry {
namespace {

constexpr std::size_t kMaxTokens = 4096;
constexpr std::uint64_t kMaxReply = 256 << 10;

/// Same registry, credential and scope: same key. The secrets only go in as a digest.
std::string SlotKey(const Endpoint& endpoint, const Credential& credential,
                    const std::string& scope) {
  std::string parts;
  for (const std::string_view part :
       {std::string_view(credential.username), std::string_view(credential.password.Reveal()),
        std::string_view(credential.identity_token.Reveal())}) {
    parts += fmt::format("{}:{};", part.size(), part);  // lengths: no two credentials look alike
  }
  return endpoint.Origin() + " " + Digest::Of(DigestAlgorithm::kSha256, AsBytes(parts)).Hex() +
         " " + scope;
}

Error NoAccess(const Endpoint& endpoint, const Credential& credential, std::string_view why) {
  return Error(Code::kUnauthenticated, fmt::format("{}: {}", endpoint.Origin(), why))
      .WithHint(credential.anonymous()
                    ? "there are no credentials for this registry: log in, or name a secret; a "
                      "missing repository may be reported like this, too"
                    : "check the credentials for this registry: they are wrong or have expired");
}

/// The challenge to answer: Bearer before Basic.
const Challenge* Choose(const std::vector<Challenge>& all) {
  const Challenge* basic = nullptr;
  for (const Challenge& one : all) {
    if (one.scheme == "bearer" && one.params.contains("realm")) return &one;
    if (one.scheme == "basic" && basic == nullptr) basic = &one;
  }
  return basic;
}

std::string Param(const Challenge& challenge, const std::string& name) {
  const auto it = challenge.params.find(name);
  return it == challenge.params.end() ? std::string() : it->second;
}

/// Our own scopes, and the one that the registry asked for when it differs (some registries know
/// the repository by another name).
std::vector<std::string> Scopes(const std::string& own, const Challenge& challenge) {
  std::vector<std::string> out;
  const auto add = [&](std::string_view text) {
    while (!text.empty() && out.size() < 8) {
      const std::size_t space = text.find(' ');
      const std::string one(text.substr(0, space));
      if (!one.empty() && one.size() <= 1024 && std::find(out.begin(), out.end(), one) == out.end())
        out.push_back(one);
      if (space == std::string_view::npos) break;
      text.remove_prefix(space + 1);
    }
  };
  add(own);
  const std::string asked = Param(challenge, "scope");
  // "repository:a:pull" is contained in "repository:a:pull,push".
  if (own.find(asked) == std::string::npos) add(asked);
  return out;
}

std::string Form(std::initializer_list<std::pair<std::string_view, std::string_view>> fields) {
  std::string out;
  for (const auto& [name, value] : fields) {
    if (!out.empty()) out += '&';
    out += fmt::format("{}={}", name, http::UrlEncode(value));
  }
  return out;
}

Secret BasicHeader(const Credential& credential) {
  return Secret("Basic " + Base64Encode(credential.username + ":" + credential.password.Reveal()));
}

/// The request for a token; `service` and `scopes` are the registry's words.
http::Request TokenRequest(const std::string& realm, const std::string& service,
                           const std::vector<std::string>& scopes, const Credential& credential) {
  http::Request request;
  request.max_response_bytes = kMaxReply;
  request.headers.Add("Accept", "application/json");
  if (!credential.identity_token.empty()) {
    std::string joined;
    for (const std::string& scope : scopes) joined += (joined.empty() ? "" : " ") + scope;
    request.method = "POST";
    request.url = realm;
    request.headers.Add("Content-Type", "application/x-www-form-urlencoded");
    request.body = Form({{"grant_type", "refresh_token"},
                         {"service", service},
                         {"client_id", "davit"},
                         {"scope", joined},
                         {"refresh_token", credential.identity_token.Reveal()}});
    return request;
  }
  request.url = realm.substr(0, realm.find('#'));
  char separator = request.url.find('?') == std::string::npos ? '?' : '&';
  const auto add = [&](std::string_view name, std::string_view value) {
    request.url += fmt::format("{}{}={}", separator, name, http::UrlEncode(value));
    separator = '&';
  };
  if (!service.empty()) add("service", service);
  for (const std::string& scope : scopes) add("scope", scope);
  if (!credential.anonymous()) {
    add("account", credential.username);
    request.headers.Add("Authorization", BasicHeader(credential).Reveal());
  }
  return request;
}

/// TLS for the token server. The registry's client certificate and its "skip verification" are
/// meant for the registry's host only; a private CA usually covers both.
http::TlsOptions RealmTls(const Endpoint& endpoint, const http::Url& realm) {
  if (realm.host == endpoint.url.host) return endpoint.tls;
  http::TlsOptions out;
  out.ca_files = endpoint.tls.ca_files;
  return out;
}

}  // namespace

Result<Secret> TokenCache::Authorization(const Context& ctx, const Endpoint& endpoint,
                                         const Credential& credential, const std::string& scope) {
  Challenge challenge;
  {
    MutexLock lock(mutex_);
    const auto it = challenges_.find(endpoint.Origin());
    if (it == challenges_.end()) return Secret();
    challenge = it->second;
  }
  if (challenge.scheme == "basic")
    return credential.username.empty() ? Secret() : BasicHeader(credential);
  return Bearer(ctx, endpoint, credential, scope, challenge, nullptr);
}

Result<Secret> TokenCache::AfterUnauthorized(const Context& ctx, const Endpoint& endpoint,
                                             const Credential& credential, const std::string& scope,
                                             const http::Headers& headers, const Secret& used) {
  std::vector<Challenge> all;
  for (const std::string_view value : headers.GetAll("WWW-Authenticate")) {
    const std::vector<Challenge> some = ParseChallenges(value);
    all.insert(all.end(), some.begin(), some.end());
  }
  const Challenge* challenge = Choose(all);
  if (challenge == nullptr)
    return NoAccess(endpoint, credential, "401 without a challenge that davit can answer");
  if (challenge->scheme == "basic") {
    if (credential.username.empty()) return NoAccess(endpoint, credential, "a login is required");
    const Secret header = BasicHeader(credential);
    if (header == used)
      return NoAccess(endpoint, credential, "the user name or password is refused");
    MutexLock lock(mutex_);
    challenges_[endpoint.Origin()] = *challenge;
    return header;
  }
  DAVIT_TRY(CheckRealm(endpoint.url, Param(*challenge, "realm")));
  {
    MutexLock lock(mutex_);
    Challenge& known = challenges_[endpoint.Origin()];
    known = *challenge;
    // The scope belongs to this one request; other repositories ask for their own.
    known.params.erase("scope");
    known.params.erase("error");
  }
  return Bearer(ctx, endpoint, credential, scope, *challenge, &used);
}

std::shared_ptr<TokenCache::Slot> TokenCache::SlotFor(const std::string& key) {
  std::shared_ptr<Slot>& slot = slots_[key];
  if (slot == nullptr) slot = std::make_shared<Slot>();
  slot->last_use = ++use_counter_;
  const std::shared_ptr<Slot> out = slot;
  if (slots_.size() > kMaxTokens) {
    const auto oldest = std::min_element(slots_.begin(), slots_.end(), [](auto& a, auto& b) {
      return a.second->last_use < b.second->last_use;
    });
    slots_.erase(oldest);
  }
  return out;
}

Result<Secret> TokenCache::Bearer(const Context& ctx, const Endpoint& endpoint,
                                  const Credential& credential, const std::string& scope,
                                  const Challenge& challenge, const Secret* rejected) {
  Secret still_valid;  // empty: there is none
  std::shared_ptr<Slot> slot;
  {
    MutexLock lock(mutex_);
    slot = SlotFor(SlotKey(endpoint, credential, scope));
    while (true) {
      const TimePoint now = clock_.Now();
      if (slot->token && rejected != nullptr && slot->token->header == *rejected)
        slot->token.reset();  // the registry says that it is over, whatever its date was
      if (slot->token && now < slot->token->refresh_at) return slot->token->header;
      still_valid = slot->token && now < slot->token->expires_at ? slot->token->header : Secret();
      if (!slot->fetching) break;
      if (!still_valid.empty()) return still_valid;
      if (!fetched_.Wait(mutex_, ctx)) {
        DAVIT_TRY(ctx.Check("wait for a token of " + endpoint.Origin()));
      }
    }
    slot->fetching = true;
  }
  Result<Token> token = Fetch(ctx, endpoint, credential, scope, challenge);
  MutexLock lock(mutex_);
  slot->fetching = false;
  fetched_.NotifyAll();
  if (!token.ok()) {
    if (still_valid.empty()) return std::move(token).error();
    log::Warn("a token could not be renewed yet",
              {{"registry", endpoint.Origin()}, {"error", token.error()}});
    return still_valid;
  }
  slot->token = *token;
  return token->header;
}

Result<TokenCache::Token> TokenCache::Fetch(const Context& ctx, const Endpoint& endpoint,
                                            const Credential& credential, const std::string& scope,
                                            const Challenge& challenge) {
  const std::string realm = Param(challenge, "realm");
  DAVIT_TRY(CheckRealm(endpoint.url, realm));
  DAVIT_TRY_ASSIGN(const http::Url url, http::Url::Parse(realm));
  const std::string service = Param(challenge, "service");
  http::Request request = TokenRequest(realm, service, Scopes(scope, challenge), credential);
  request.tls = RealmTls(endpoint, url);
  request.proxy = endpoint.proxy;
  const TimePoint asked = clock_.Now();
  const std::string what = fmt::format("get a token from {}", url.Origin());
  Result<http::Response> reply = http_.Do(ctx, request);
  if (!reply.ok()) return std::move(reply).error().WithContext(endpoint.Origin() + ": " + what);
  if (reply->status != 200) {
    Error error = ErrorFromReply(*reply, what, clock_.WallNow());
    // Whatever a token server refuses, to the caller it is about credentials.
    if (error.code() != Code::kUnavailable) return NoAccess(endpoint, credential, error.message());
    return std::move(error).WithContext(endpoint.Origin());
  }
  Result<Grant> grant = ParseGrant(reply->body);
  if (!grant.ok()) return std::move(grant).error().WithContext(endpoint.Origin() + ": " + what);
  // Counted from before the request: our clock alone decides, the server's "issued_at" may be off.
  const Duration life = grant->life;
  const Duration margin = std::min<Duration>(life / 5, std::chrono::seconds(30));
  return Token{grant->header, asked + life - margin, asked + life};
}

}  // namespace davit::registry
