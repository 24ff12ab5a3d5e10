#pragma once
// Requests to the endpoints of one repository: authentication, redirects, mirrors and patience.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/context.h"
#include "common/base/sync.h"
#include "common/http/client.h"
#include "storage/registry/auth.h"
#include "storage/registry/client.h"
#include "storage/registry/endpoint_list.h"
#include "storage/registry/errors.h"
#include "storage/registry/health.h"

namespace davit::registry {

/// What all repositories of one Registries share.
struct Shared {
  Shared(const RegistryOptions& opts, http::Client& client, Clock& the_clock)
      : options(opts),
        http(client),
        clock(the_clock),
        tokens(client, the_clock),
        health(the_clock) {}
  const RegistryOptions options;
  http::Client& http;
  Clock& clock;
  TokenCache tokens;
  EndpointHealth health;
  Mutex referrers_mutex;  // one read-modify-write of a fall-back tag at a time; held over requests
};

/// One request of the distribution API.
struct Call {
  std::string what;  // for messages: "get the manifest v1"
  std::string method = "GET";
  std::string url;
  http::Headers headers;
  std::string body;
  std::function<http::UploadBody()> upload;  // made anew for each try
  std::string scope;
  std::uint64_t max_response_bytes = 4ULL << 20;
  bool follow_redirects = true;
};

/// Where the body of a 200 or 206 goes; other replies are kept for the error message.
struct BodySink {
  std::function<Status(int status, const http::Headers&)> on_headers;
  http::Client::OnData on_data;
};

struct Reply {
  http::Response response;
  std::string url;          // that answered
  bool redirected = false;  // it is another origin than the endpoint's
};

/// Thread-safe.
class Session {
 public:
  Session(std::shared_ptr<Shared> shared, std::unique_ptr<EndpointList> endpoints, std::string name,
          std::string repository, std::shared_ptr<CredentialProvider> credentials);

  const std::string& name() const { return name_; }  // "host/repository", for messages
  const std::string& repository() const { return repository_; }
  /// The registry itself; pushes go there only. A copy: its file may change meanwhile.
  Endpoint origin() const { return endpoints_->Get()->back(); }
  Shared& shared() const { return *shared_; }

  /// "BASE/repository/REST", with ?ns= for mirrors.
  std::string Url(const Endpoint& endpoint, std::string_view rest) const;

  /// Any status is a Reply, after answering a 401 once and following at most 5 redirects.
  Result<Reply> Send(const Context& ctx, const Endpoint& endpoint, const Call& call,
                     const BodySink* sink = nullptr);
  /// The same; a status other than `wanted` is an error.
  Result<Reply> Expect(const Context& ctx, const Endpoint& endpoint, const Call& call,
                       std::initializer_list<int> wanted, const BodySink* sink = nullptr);
  Error Unexpected(const Reply& reply, const Endpoint& endpoint, const Call& call) const;
  /// The registry sends us where we do not go.
  static Error Astray(std::string message);
  /// Resolves a Location header; refuses steps to plain http or to link-local addresses.
  Result<http::Url> CheckedLocation(const Endpoint& endpoint, const http::Url& base,
                                    const http::Headers& headers) const;

  /// Endpoints for a pull, in the order to try: usable mirrors, the registry, failed mirrors.
  /// `avoid` is left out when something else is left.
  std::vector<std::shared_ptr<const Endpoint>> PullOrder(bool by_tag,
                                                         const std::string& avoid = {});

  /// Calls `attempt(endpoint)` for one endpoint after the other until one succeeds; the error is
  /// the registry's own.
  template <class F>
  auto Pull(const Context& ctx, bool by_tag, F&& attempt)
      -> decltype(attempt(std::declval<const Endpoint&>())) {
    using R = decltype(attempt(std::declval<const Endpoint&>()));
    std::optional<R> out;
    for (const auto& endpoint : PullOrder(by_tag)) {
      R one = attempt(*endpoint);
      if (one.ok()) {
        if (endpoint->mirror) shared_->health.Succeeded(endpoint->Origin());
        return one;
      }
      NoteFailure(*endpoint, one.error());
      if (!ctx.Check("").ok()) return one;
      const bool decided = !endpoint->mirror && !IsTransient(one.error());
      if (!out || !endpoint->mirror) out.emplace(std::move(one));
      if (decided) break;
    }
    return *std::move(out);
  }

  /// Repeats an idempotent call while its error is transient, with growing pauses.
  template <class F>
  auto Retry(const Context& ctx, F&& attempt) -> decltype(attempt()) {
    for (int i = 0;; ++i) {
      auto out = attempt();
      if (out.ok() || !IsTransient(out.error()) || i >= shared_->options.retries) return out;
      if (!PauseBeforeRetry(ctx, i, out.error())) return out;
    }
  }
  /// False when there is no time left, or the other side wants a longer pause than is sensible.
  bool PauseBeforeRetry(const Context& ctx, int attempt, const Error& error) const;
  /// Lets the health of a mirror know; "not found" and the caller's own reasons do not count.
  void NoteFailure(const Endpoint& endpoint, const Error& error);

 private:
  Result<Credential> CredentialFor(const Context& ctx, const Endpoint& endpoint, bool anew);
  Result<Reply> Follow(const Context& ctx, const Endpoint& endpoint, const Call& call,
                       const Secret& authorization, const BodySink* sink);
  http::Request MakeRequest(const Endpoint& endpoint, const Call& call, const http::Url& url,
                            bool own, const Secret& authorization) const;
  Result<http::Response> Exchange(const Context& ctx, const Call& call,
                                  const http::Request& request, const BodySink* sink);

  struct Known {
    Credential credential;
    TimePoint until;
  };
  const std::shared_ptr<Shared> shared_;
  const std::unique_ptr<EndpointList> endpoints_;
  const std::string name_;
  const std::string repository_;
  const std::shared_ptr<CredentialProvider> credentials_;
  Mutex mutex_;
  std::map<std::string, Known> known_ DAVIT_GUARDED_BY(mutex_);  // by origin
};

}  // namespace davit::registry
