// Where a registry may send us, and what goes along: Location of redirects and uploads, Link of
// pages.

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "storage/registry/base64.h"
#include "tests/unit/storage_registry/fake_network.h"

namespace davit::testing {
namespace {

using http::Request;
using http::Response;

const std::string kHome = "reg.example";
const std::string kText = "0123456789";
const std::string kDigest = oci::DescribeContent("", kText).digest;

/// A registry that demands Basic and answers as `answer` says once that is right.
class RedirectTest : public ::testing::Test {
 protected:
  using Answer = std::function<Response(const Request&, const http::Url&)>;

  std::shared_ptr<registry::Repository> Open(Answer answer) {
    network_ = std::make_unique<FakeNetwork>([answer](const Request& request) -> Response {
      const http::Url url = http::Url::Parse(request.url).value();
      const std::string login = "Basic " + registry::Base64Encode("davit:hushhush");
      if (url.host == kHome && url.port == 443 &&
          request.headers.Get("Authorization").value_or("") != login) {
        return {.status = 401, .headers = {{"WWW-Authenticate", "Basic realm=\"x\""}}, .body = {}};
      }
      return answer(request, url);
    });
    registry::Credential credential;
    credential.username = "davit";
    credential.password = Secret("hushhush");
    registry::RegistryOptions options;
    options.retries = 1;
    options.tls.client_cert_file = "/client.pem";
    registries_ = registry::Registries::Create(options, *network_, clock_,
                                               registry::FixedCredential(credential));
    return registries_->Open(registry::Reference::Parse(kHome + "/app:v1").value()).value();
  }

  static registry::BlobContent Content() {
    registry::BlobContent out;
    out.descriptor = oci::DescribeContent("application/octet-stream", kText);
    out.read_at = [](std::uint64_t offset, MutableBytes piece) -> Result<std::size_t> {
      const std::size_t n = std::min<std::size_t>(piece.size(), kText.size() - offset);
      std::memcpy(piece.data(), kText.data() + offset, n);
      return n;
    };
    return out;
  }

  /// Nothing that belongs to the registry went to any other place.
  void ExpectNothingLeaked() const {
    for (const Request& request : network_->requests) {
      const http::Url url = http::Url::Parse(request.url).value();
      if (url.Origin() == "https://" + kHome + ":443" || url.Origin() == "https://" + kHome)
        continue;
      EXPECT_FALSE(request.headers.Get("Authorization").has_value()) << request.url;
      if (url.host != kHome) {
        EXPECT_EQ(request.tls.client_cert_file, "") << request.url;
      }
    }
  }

  static void ExpectSays(const Error& error, std::initializer_list<const char*> texts) {
    const std::string text = error.ToString();
    for (const char* part : texts) EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_EQ(text.find("hushhush"), std::string::npos) << text;
    EXPECT_EQ(text.find("signed"), std::string::npos) << text;
    EXPECT_FALSE(error.hint().empty()) << text;
  }

  PausingClock clock_;
  std::unique_ptr<FakeNetwork> network_;
  std::unique_ptr<registry::Registries> registries_;
  Context ctx_;
};

struct Refusal {
  const char* location;
  const char* why;
};
const Refusal kRefusals[] = {
    {"http://reg.example/v2/app/x?key=signed", "from https to plain http"},
    {"http://store.example/x?key=signed", "from https to plain http"},
    {"https://169.254.169.254/latest?key=signed", "link-local or metadata"},
    {"https://2852039166/latest", "link-local or metadata"},
    {"https://metadata.google.internal/x", "link-local or metadata"},
    {"https://davit:signed@store.example/x", "without user information"},
    {"file:///etc/passwd", "without user information"},
    {"ftp://store.example/x", "without user information"},
};

TEST_F(RedirectTest, ReadsAreNotLedAstray) {
  for (const Refusal& one : kRefusals) {
    const auto repository = Open([&](const Request&, const http::Url&) -> Response {
      return {.status = 307, .headers = {{"Location", one.location}}, .body = {}};
    });
    const auto got = repository->GetManifest(ctx_, "v1");
    ASSERT_FALSE(got.ok()) << one.location;
    ExpectSays(got.error(), {"reg.example/app", "get the manifest 'v1'", "is refused", one.why});
    EXPECT_EQ(network_->To(kHome).size(), network_->requests.size()) << one.location;
    ExpectNothingLeaked();
  }
}

TEST_F(RedirectTest, UploadsAreNotLedAstray) {
  for (const Refusal& one : kRefusals) {
    const auto repository = Open([&](const Request& request, const http::Url&) -> Response {
      if (request.method == "HEAD") return {.status = 404, .headers = {}, .body = {}};
      return {.status = 202, .headers = {{"Location", one.location}}, .body = {}};
    });
    const auto pushed = repository->PushBlob(ctx_, Content());
    ASSERT_FALSE(pushed.ok()) << one.location;
    ExpectSays(pushed.error(), {"reg.example/app", kDigest.c_str(), "is refused", one.why});
    EXPECT_EQ(network_->To(kHome).size(), network_->requests.size()) << one.location;
    for (const Request& request : network_->requests) EXPECT_NE(request.method, "PUT");
  }
}

TEST_F(RedirectTest, AnUploadMayGoToAStoreWithoutTheLogin) {
  std::string stored;
  const auto repository = Open([&](const Request& request, const http::Url& url) -> Response {
    if (request.method == "HEAD") return {.status = 404, .headers = {}, .body = {}};
    if (request.method == "POST") {
      return {
          .status = 202, .headers = {{"Location", "https://store.example/up?key=1"}}, .body = {}};
    }
    EXPECT_EQ(url.host, "store.example");
    stored.resize(request.upload->size);
    EXPECT_EQ(request.upload->read(0, std::as_writable_bytes(std::span(stored))).value(), 10U);
    EXPECT_NE(request.url.find("/up?key=1&digest=sha256%3A"), std::string::npos) << request.url;
    return {.status = 201, .headers = {}, .body = {}};
  });
  const auto pushed = repository->PushBlob(ctx_, Content());
  ASSERT_TRUE(pushed.ok()) << pushed.error().ToString();
  EXPECT_EQ(stored, "0123456789");
  EXPECT_EQ(network_->To("store.example").size(), 1U);
  ExpectNothingLeaked();
}

TEST_F(RedirectTest, AStoreThatAsksForALoginGetsNone) {
  for (const bool basic : {true, false}) {
    const auto repository = Open([&](const Request&, const http::Url& url) -> Response {
      if (url.host == kHome) {
        return {.status = 307, .headers = {{"Location", "https://store.example/m"}}, .body = {}};
      }
      return {.status = 401,
              .headers = {{"WWW-Authenticate", basic ? "Basic realm=\"give\""
                                                     : "Bearer realm=\"https://store.example/t\""}},
              .body = {}};
    });
    const auto got = repository->GetManifest(ctx_, "v1");
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.error().code(), Code::kUnauthenticated);
    ExpectSays(got.error(), {"get the manifest 'v1'", "https://store.example/m", "401"});
    EXPECT_EQ(network_->To("store.example").size(), 1U);
    ExpectNothingLeaked();
  }
}

TEST_F(RedirectTest, OnceAwayTheLoginDoesNotComeBack) {
  // Home, away, home again: the last step carries what another host chose.
  const auto repository = Open([&](const Request&, const http::Url& url) -> Response {
    const std::string to = url.host == kHome ? "https://store.example/m" : "https://reg.example/m";
    return {.status = 302, .headers = {{"Location", to}}, .body = {}};
  });
  EXPECT_FALSE(repository->GetManifest(ctx_, "v1").ok());
  bool left = false;
  for (const Request& request : network_->requests) {
    if (request.url.starts_with("https://store.example/")) left = true;
    if (left && request.url == "https://reg.example/m") {
      EXPECT_FALSE(request.headers.Get("Authorization").has_value());
    }
  }
  EXPECT_TRUE(left);
}

TEST_F(RedirectTest, AnotherPortIsAnotherPlace) {
  const auto repository = Open([&](const Request&, const http::Url& url) -> Response {
    if (url.port == 443) {
      return {.status = 307, .headers = {{"Location", "https://reg.example:8443/m"}}, .body = {}};
    }
    return {.status = 404, .headers = {}, .body = {}};
  });
  EXPECT_EQ(repository->GetManifest(ctx_, "v1").error().code(), Code::kNotFound);
  ExpectNothingLeaked();
}

struct WriteRedirect {
  int status;
  const char* location;
  bool followed;
};

TEST_F(RedirectTest, WritesFollowOnlyWithinTheRegistry) {
  const WriteRedirect cases[] = {
      {307, "/v2/moved/x", true},
      {308, "https://reg.example/v2/moved/x", true},
      {301, "/v2/moved/x", false},  // clients make a GET of it, which is not what was meant
      {302, "/v2/moved/x", false},
      {303, "/v2/moved/x", false},
      {307, "https://store.example/v2/moved/x?key=signed", false},
      {308, "https://reg.example:8443/v2/moved/x", false},
      {307, "http://reg.example/v2/moved/x", false},
  };
  const std::string manifest = R"({"schemaVersion":2,"manifests":[]})";
  for (const WriteRedirect& one : cases) {
    for (const std::string& method : std::vector<std::string>{"POST", "PUT"}) {
      const auto repository = Open([&](const Request& request, const http::Url& url) -> Response {
        if (request.method == "HEAD") return {.status = 404, .headers = {}, .body = {}};
        if (url.path.starts_with("/v2/moved/")) {
          EXPECT_EQ(request.method, method);
          if (method == "PUT") {
            EXPECT_EQ(request.body, manifest);
          }
          return {.status = 201, .headers = {{"Location", "/v2/app/blobs/up"}}, .body = {}};
        }
        return {.status = one.status, .headers = {{"Location", one.location}}, .body = {}};
      });
      const Result<bool> done = method == "PUT" ? [&]() -> Result<bool> {
        DAVIT_TRY(repository->PushManifest(ctx_, "v1", oci::kIndex, manifest));
        return true;
      }()
          : repository->MountBlob(ctx_, Content().descriptor, "other");
      EXPECT_EQ(done.ok(), one.followed) << method << " " << one.status << " " << one.location;
      if (!done.ok()) ExpectSays(done.error(), {"reg.example/app"});
      EXPECT_EQ(network_->To(kHome).size(), network_->requests.size()) << one.location;
      ExpectNothingLeaked();
    }
  }
}

struct PageCase {
  const char* link;
  const char* why;  // nullptr: followed
};
const PageCase kPages[] = {
    {"</v2/app/next?last=a>; rel=\"next\"", nullptr},
    {"<https://reg.example/v2/app/next?last=a>; rel=next", nullptr},
    {"<https://reg.example:443/v2/app/next?last=a>; rel=\"next\"", nullptr},
    {"<https://store.example/v2/app/next?key=signed>; rel=\"next\"", "it is elsewhere"},
    {"<//store.example/v2/app/next>; rel=\"next\"", "it is elsewhere"},
    {"<http://reg.example/v2/app/next>; rel=\"next\"", "it is elsewhere"},
    {"<https://reg.example:8443/v2/app/next>; rel=\"next\"", "it is elsewhere"},
    {"<https://davit:signed@reg.example/v2/app/next>; rel=\"next\"", "it is elsewhere"},
    {"<https://reg.example@store.example/v2/app/next>; rel=\"next\"", "it is elsewhere"},
    {"<>; rel=\"next\"", "the same page again"},
};

TEST_F(RedirectTest, PagesOfTagsStayAtTheRegistry) {
  for (const PageCase& one : kPages) {
    const auto repository = Open([&](const Request&, const http::Url& url) -> Response {
      if (url.path.find("next") != std::string::npos)
        return {.status = 200, .headers = {}, .body = R"({"tags":["b"]})"};
      return {.status = 200, .headers = {{"Link", one.link}}, .body = R"({"tags":["a"]})"};
    });
    const auto tags = repository->ListTags(ctx_);
    EXPECT_EQ(tags.ok(), one.why == nullptr) << one.link;
    if (tags.ok()) {
      EXPECT_EQ(*tags, (std::vector<std::string>{"a", "b"}));
    } else {
      ExpectSays(tags.error(), {"reg.example/app", "list the tags", one.why});
    }
    EXPECT_EQ(network_->To(kHome).size(), network_->requests.size()) << one.link;
    ExpectNothingLeaked();
  }
}

TEST_F(RedirectTest, PagesOfReferrersStayAtTheRegistry) {
  for (const PageCase& one : kPages) {
    const std::string page = R"({"schemaVersion":2,"manifests":[]})";
    const auto repository = Open([&](const Request&, const http::Url& url) -> Response {
      if (url.path.find("next") != std::string::npos)
        return {.status = 200, .headers = {}, .body = page};
      return {.status = 200, .headers = {{"Link", one.link}}, .body = page};
    });
    const auto all = repository->Referrers(ctx_, kDigest, "");
    EXPECT_EQ(all.ok(), one.why == nullptr) << one.link;
    if (!all.ok()) {
      ExpectSays(all.error(), {"reg.example/app", "list the referrers", kDigest.c_str(), one.why});
    }
    EXPECT_EQ(network_->To(kHome).size(), network_->requests.size()) << one.link;
    ExpectNothingLeaked();
  }
}

TEST_F(RedirectTest, ARedirectWithoutATargetIsSaid) {
  const auto repository = Open([&](const Request& request, const http::Url&) -> Response {
    if (request.method == "HEAD") return {.status = 404, .headers = {}, .body = {}};
    return {.status = request.method == "POST" ? 202 : 307, .headers = {}, .body = {}};
  });
  ExpectSays(repository->GetManifest(ctx_, "v1").error(), {"reg.example", "without a Location"});
  ExpectSays(repository->PushBlob(ctx_, Content()).error(), {"reg.example", "without a Location"});
}

}  // namespace
}  // namespace davit::testing
