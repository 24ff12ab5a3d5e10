#include "storage/registry/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace davit::registry {
namespace {

constexpr int kMaxHops = 5;
constexpr std::uint64_t kMaxErrorBody = 64 << 10;
constexpr std::chrono::seconds kCredentialLife{30};
constexpr std::chrono::milliseconds kFirstPause{250};
constexpr std::chrono::milliseconds kLongestPause{8000};
constexpr std::chrono::seconds kLongestWait{120};

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool IsRead(const std::string& method) { return method == "GET" || method == "HEAD"; }

double Random() {
  thread_local std::minstd_rand engine(std::random_device{}());
  return std::uniform_real_distribution<double>(0.5, 1.0)(engine);
}

}  // namespace

Session::Session(std::shared_ptr<Shared> shared, std::unique_ptr<EndpointList> endpoints,
                 std::string name, std::string repository,
                 std::shared_ptr<CredentialProvider> credentials)
    : shared_(std::move(shared)),
      endpoints_(std::move(endpoints)),
      name_(std::move(name)),
      repository_(std::move(repository)),
      credentials_(std::move(credentials)) {}

Error Session::Astray(std::string message) {
  return Error(Code::kUnavailable, std::move(message))
      .WithHint(
          "the registry, or a proxy in between, is set up wrongly: ask its owner to let it name "
          "its "
          "own https address");
}

std::string Session::Url(const Endpoint& endpoint, std::string_view rest) const {
  std::string out = fmt::format("{}/{}/{}", endpoint.url.ToString(), repository_, rest);
  if (!endpoint.ns.empty()) {
    out += out.find('?') == std::string::npos ? "?ns=" : "&ns=";
    out += http::UrlEncode(endpoint.ns);
  }
  return out;
}

Result<Credential> Session::CredentialFor(const Context& ctx, const Endpoint& endpoint, bool anew) {
  if (credentials_ == nullptr) return Credential();
  const std::string key = endpoint.Origin();
  if (!anew) {
    MutexLock lock(mutex_);
    const auto it = known_.find(key);
    if (it != known_.end() && shared_->clock.Now() < it->second.until) return it->second.credential;
  }
  // Without the lock: a helper may take its time.
  DAVIT_TRY_ASSIGN(Credential credential,
                   endpoint.own_host
                       ? credentials_->Get(ctx, endpoint.credential_host, repository_)
                       : credentials_->GetForOther(ctx, endpoint.credential_host, repository_));
  MutexLock lock(mutex_);
  known_[key] = Known{credential, shared_->clock.Now() + kCredentialLife};
  return credential;
}

http::Request Session::MakeRequest(const Endpoint& endpoint, const Call& call, const http::Url& url,
                                   bool own, const Secret& authorization) const {
  http::Request request;
  request.method = call.method;
  request.url = url.ToString();
  request.headers = call.headers;
  request.body = call.body;
  if (call.upload) request.upload = call.upload();
  request.proxy = endpoint.proxy;
  request.connect_timeout = shared_->options.connect_timeout;
  request.stall_timeout = shared_->options.stall_timeout;
  request.max_response_bytes = call.max_response_bytes;
  if (own) {
    for (const auto& [name, value] : endpoint.headers.items()) request.headers.Add(name, value);
    if (!authorization.empty()) request.headers.Set("Authorization", authorization.Reveal());
  }
  if (url.host == endpoint.url.host) {
    request.tls = endpoint.tls;
  } else {
    // Client certificates and "skip verification" are meant for the registry's own host.
    request.tls.ca_files = endpoint.tls.ca_files;
  }
  return request;
}

Result<http::Response> Session::Exchange(const Context& ctx, const Call& call,
                                         const http::Request& request, const BodySink* sink) {
  http::Response seen;
  bool streaming = false, cut = false;
  const auto on_headers = [&](int status, const http::Headers& headers) -> Status {
    seen.status = status;
    seen.headers = headers;
    streaming = sink != nullptr && (status == 200 || status == 206);
    return streaming ? sink->on_headers(status, headers) : Status();
  };
  const auto on_data = [&](Bytes data) -> Status {
    if (streaming) return sink->on_data(data);
    const bool good = seen.status >= 200 && seen.status < 300;
    const std::uint64_t limit = good ? call.max_response_bytes : kMaxErrorBody;
    if (seen.body.size() + data.size() > limit) {
      cut = !good;
      return Error(Code::kResourceExhausted,
                   fmt::format("the reply is larger than {} bytes", limit));
    }
    seen.body += AsText(data);
    return {};
  };
  Result<http::Response> response = shared_->http.Stream(ctx, request, on_headers, on_data);
  // An endless error page is still the reply that its status says.
  if (!response.ok() && !cut) return std::move(response).error();
  return seen;
}

Result<http::Url> Session::CheckedLocation(const Endpoint& endpoint, const http::Url& base,
                                           const http::Headers& headers) const {
  const auto location = headers.Get("Location");
  if (!location) return Astray(fmt::format("{} sent a redirect without a Location", base.Origin()));
  const auto refuse = [&](std::string_view why) {
    return Astray(fmt::format("{} points to '{}', which is refused: {}", base.Origin(),
                              ShownUrl(*location), why));
  };
  Result<http::Url> url = base.Resolve(*location);
  if (!url.ok()) return refuse("it is not an http or https URL without user information");
  if (url->scheme != "https" && (base.scheme == "https" || endpoint.url.scheme == "https"))
    return refuse("it leads from https to plain http");
  if (IsLinkLocal(url->host) && !IsLinkLocal(endpoint.url.host))
    return refuse("it is a link-local or metadata address");
  return url;
}

Result<Reply> Session::Follow(const Context& ctx, const Endpoint& endpoint, const Call& call,
                              const Secret& authorization, const BodySink* sink) {
  DAVIT_TRY_ASSIGN(http::Url url, http::Url::Parse(call.url));
  const std::string home = endpoint.Origin();
  bool own = url.Origin() == home;
  for (int hop = 0;; ++hop) {
    const http::Request request = MakeRequest(endpoint, call, url, own, authorization);
    DAVIT_TRY_ASSIGN(http::Response response, Exchange(ctx, call, request, sink));
    if (own) shared_->health.Saw(home, response);
    if (!IsRedirect(response.status) || !call.follow_redirects)
      return Reply{std::move(response), url.ToString(), !own};
    if (hop >= kMaxHops) return Astray(fmt::format("more than {} redirects", kMaxHops));
    DAVIT_TRY_ASSIGN(http::Url next, CheckedLocation(endpoint, url, response.headers));
    const bool same = next.Origin() == home;
    if (!IsRead(call.method) && (!same || (response.status != 307 && response.status != 308))) {
      return Astray(fmt::format("the redirect {} of a {} to '{}' is not followed", response.status,
                                call.method, ShownUrl(next.ToString())));
    }
    own = own && same;  // once away, credentials do not come back either
    url = std::move(next);
  }
}

Result<Reply> Session::Send(const Context& ctx, const Endpoint& endpoint, const Call& call,
                            const BodySink* sink) {
  const std::string home = endpoint.Origin();
  const std::string where = name_ + ": " + call.what;
  DAVIT_TRY(ctx.Check(where));
  if (const auto pause = shared_->health.Paused(home)) {
    return Error(Code::kUnavailable, fmt::format("{}: {} asked for no requests for another {} s",
                                                 where, home, pause->count()))
        .WithRetryAfter(*pause);
  }
  DAVIT_TRY_ASSIGN(Credential credential, CredentialFor(ctx, endpoint, false));
  DAVIT_TRY_ASSIGN(Secret authorization,
                   shared_->tokens.Authorization(ctx, endpoint, credential, call.scope));
  for (int attempt = 0;; ++attempt) {
    Result<Reply> reply = Follow(ctx, endpoint, call, authorization, sink);
    if (!reply.ok()) return std::move(reply).error().WithContext(where);
    if (reply->response.status != 401 || reply->redirected || attempt >= 2) return reply;
    // The file or secret may have changed since.
    DAVIT_TRY_ASSIGN(credential, CredentialFor(ctx, endpoint, attempt == 0));
    Result<Secret> again = shared_->tokens.AfterUnauthorized(
        ctx, endpoint, credential, call.scope, reply->response.headers, authorization);
    if (!again.ok()) return std::move(again).error().WithContext(where);
    authorization = *std::move(again);
  }
}

Error Session::Unexpected(const Reply& reply, const Endpoint& endpoint, const Call& call) const {
  std::string where = name_ + ": " + call.what;
  if (reply.redirected) {
    where += " at " + ShownUrl(reply.url);
  } else if (endpoint.mirror) {
    where += " at the mirror " + endpoint.Origin();
  }
  return ErrorFromReply(reply.response, where, shared_->clock.WallNow());
}

Result<Reply> Session::Expect(const Context& ctx, const Endpoint& endpoint, const Call& call,
                              std::initializer_list<int> wanted, const BodySink* sink) {
  DAVIT_TRY_ASSIGN(Reply reply, Send(ctx, endpoint, call, sink));
  if (std::find(wanted.begin(), wanted.end(), reply.response.status) != wanted.end()) return reply;
  return Unexpected(reply, endpoint, call);
}

std::vector<std::shared_ptr<const Endpoint>> Session::PullOrder(bool by_tag,
                                                                const std::string& avoid) {
  const EndpointList::List all = endpoints_->Get();
  std::vector<std::shared_ptr<const Endpoint>> out, failed;
  for (const Endpoint& endpoint : *all) {
    const std::string origin = endpoint.Origin();
    if (!avoid.empty() && origin == avoid) continue;
    const std::shared_ptr<const Endpoint> shared(all, &endpoint);
    if (!endpoint.mirror) {
      out.push_back(shared);
    } else if (by_tag ? endpoint.can_resolve : endpoint.can_pull) {
      (shared_->health.Usable(origin) ? out : failed).push_back(shared);
    }
  }
  out.insert(out.end(), failed.begin(), failed.end());
  if (out.empty()) out.emplace_back(all, &all->back());
  return out;
}

bool Session::PauseBeforeRetry(const Context& ctx, int attempt, const Error& error) const {
  Duration wait = std::min<Duration>(kFirstPause * (1 << std::min(attempt, 6)), kLongestPause);
  wait = std::chrono::duration_cast<Duration>(wait * Random());
  if (const auto asked = error.retry_after()) wait = std::max<Duration>(wait, *asked);
  if (wait > kLongestWait) return false;
  if (ctx.deadline && shared_->clock.Now() + wait >= *ctx.deadline) return false;
  return shared_->clock.SleepFor(wait, ctx.stop) && ctx.Check("").ok();
}

void Session::NoteFailure(const Endpoint& endpoint, const Error& error) {
  if (!endpoint.mirror || error.code() == Code::kNotFound || error.code() == Code::kCancelled)
    return;
  shared_->health.Failed(endpoint.Origin(), error);
}

}  // namespace davit::registry
