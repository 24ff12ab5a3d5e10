// Registries that lie, stumble and limit; tokens that end.

#include <atomic>
#include <thread>
#include <vector>

#include "tests/integration/registry/fault_fixture.h"

namespace davit::testing {
namespace {

using Auth = FakeRegistry::Options::Auth;
using Kind = Fault::Kind;

struct RangeFault {
  Fault fault;
  Code code;
  const char* text;
};

TEST_F(FaultTest, WrongRangeRepliesNeverReachTheReader) {
  Start();
  const RangeFault faults[] = {
      {{.kind = Kind::kWrongRange}, Code::kDataLoss, "asked for"},
      {{.kind = Kind::kIgnoreRange}, Code::kUnavailable, "200 instead of 206"},
      {{.kind = Kind::kHtml}, Code::kUnavailable, "200 instead of 206"},
      {{.kind = Kind::kStatus, .status = 416}, Code::kDataLoss, "416"},
      {{.kind = Kind::kStatus, .status = 503, .retry_after = 7}, Code::kUnavailable, "503"},
      {{.kind = Kind::kStatus, .status = 404}, Code::kNotFound, "404"},
      {{.kind = Kind::kStatus, .status = 403}, Code::kPermissionDenied, "403"},
  };
  for (const RangeFault& one : faults) {
    Client client;
    const auto source = Open(client)->OpenBlob(blob_);
    Fault fault = one.fault;
    fault.path = "/blobs/";
    fault.times = -1;
    fake_->SetFault(fault);
    bool seen = false;
    storage::SourceRead how;
    const Status status = source->Read(ctx_, {1000, 5000}, how, [&](Bytes) -> Status {
      seen = true;
      return {};
    });
    fake_->ClearFaults();
    ASSERT_FALSE(status.ok()) << one.text;
    EXPECT_EQ(status.error().code(), one.code) << status.error().ToString();
    EXPECT_NE(status.error().message().find(one.text), std::string::npos)
        << status.error().ToString();
    EXPECT_FALSE(seen) << one.text;
    if (one.fault.retry_after > 0) {
      EXPECT_EQ(status.error().retry_after(), std::chrono::seconds(7));
    }
  }
}

TEST_F(FaultTest, AReplyOfTheWrongKindIsAskedForOnceMore) {
  Start();
  Client client;
  const auto source = Open(client)->OpenBlob(blob_);
  fake_->SetFault({.kind = Kind::kWrongRange, .path = "/blobs/"});
  fake_->ClearLog();
  std::string got;
  storage::SourceRead how;
  DAVIT_OK(source->Read(ctx_, {1000, 5000}, how, [&](Bytes data) -> Status {
    got += AsText(data);
    return {};
  }));
  EXPECT_TRUE(got == layer_.substr(1000, 5000));
  EXPECT_EQ(fake_->requests().size(), 2U);
}

TEST_F(FaultTest, ShortBodiesAndResetsAreUnavailable) {
  Start();
  for (const Kind kind : {Kind::kShortBody, Kind::kReset}) {
    Client client;
    const auto source = Open(client)->OpenBlob(blob_);
    fake_->SetFault({.kind = kind, .path = "/blobs/", .offset = 1000});
    storage::SourceRead how;
    std::string got;
    const Status status = source->Read(ctx_, {100, 5000}, how, [&](Bytes data) -> Status {
      got += AsText(data);
      return {};
    });
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code(), Code::kUnavailable) << status.error().ToString();
    EXPECT_EQ(got, layer_.substr(100, got.size()));
    fake_->ClearFaults();
  }
}

TEST_F(FaultTest, WholeBlobResumesWhereItBroke) {
  Start();
  Client client;
  fake_->SetFault({.kind = Kind::kShortBody, .path = "/blobs/", .offset = 150'000});
  const auto got = Whole(*Open(client));
  DAVIT_OK(got);
  EXPECT_TRUE(*got == layer_);
  bool resumed = false;
  for (const LoggedRequest& request : fake_->requests())
    resumed = resumed || request.range.find("150000-") != std::string::npos;
  EXPECT_TRUE(resumed);
}

TEST_F(FaultTest, WholeBlobResumesWithoutRangesToo) {
  Start();
  Client client;
  fake_->SetFault({.kind = Kind::kReset, .path = "/blobs/", .offset = 150'000});
  fake_->SetFault({.kind = Kind::kIgnoreRange, .path = "/blobs/", .times = -1});
  const auto got = Whole(*Open(client));
  DAVIT_OK(got);
  EXPECT_TRUE(*got == layer_);
}

TEST_F(FaultTest, FlippedByteFailsTheWholeBlob) {
  Start();
  Client client;
  fake_->SetFault({.kind = Kind::kFlipByte, .path = "/blobs/", .offset = 1234});
  const auto got = Whole(*Open(client));
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code(), Code::kDataLoss);
}

TEST_F(FaultTest, TransientStatusesAreRetried) {
  Start();
  fake_->AddManifest("app", "v1", std::string(oci::kIndex),
                     R"({"schemaVersion":2,"manifests":[]})");
  for (const int status : {408, 429, 500, 502, 503, 504}) {
    Client client;
    fake_->SetFault({.path = "/manifests/", .times = 2, .status = status});
    DAVIT_OK(Open(client)->GetManifest(ctx_, "v1"));
    fake_->ClearFaults();
  }
}

TEST_F(FaultTest, RetryAfterIsObeyed) {
  Start();
  fake_->AddManifest("app", "v1", std::string(oci::kIndex),
                     R"({"schemaVersion":2,"manifests":[]})");
  Client client;
  fake_->SetFault({.path = "/manifests/", .status = 429, .retry_after = 30});
  DAVIT_OK(Open(client)->GetManifest(ctx_, "v1"));
  EXPECT_GE(client.clock.skipped(), std::chrono::seconds(30));
  EXPECT_EQ(CountRequests("/manifests/"), 2);

  // A deadline that is too near: told at once, with the time to wait.
  Client hurried;
  fake_->SetFault({.path = "/manifests/", .status = 429, .retry_after = 30});
  const auto refused = Open(hurried)->GetManifest(ctx_.WithTimeout(std::chrono::seconds(5)), "v1");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), Code::kUnavailable);
  EXPECT_TRUE(refused.error().retry_after().has_value());
  // Until then the host hears nothing, whatever is asked.
  const int before = CountRequests("/");
  storage::SourceRead how;
  EXPECT_FALSE(ReadAll(*Open(hurried)->OpenBlob(blob_), {0, 10}, how).ok());
  EXPECT_EQ(CountRequests("/"), before);
}

TEST_F(FaultTest, ManifestDigestsAreVerified) {
  Start();
  const std::string digest = fake_->AddManifest("app", "v1", std::string(oci::kIndex),
                                                R"({"schemaVersion":2,"manifests":[]})");
  Client client;
  fake_->SetFault({.kind = Kind::kWrongDigest, .path = "/manifests/", .times = -1});
  EXPECT_EQ(Open(client)->GetManifest(ctx_, "v1").error().code(), Code::kDataLoss);
  fake_->ClearFaults();
  fake_->SetFault({.kind = Kind::kNoDigest, .path = "/manifests/", .times = -1});
  const auto resolved = Open(client)->Resolve(ctx_, "v1");
  DAVIT_OK(resolved);
  EXPECT_EQ(resolved->digest, digest);
}

TEST_F(FaultTest, TokensAreSharedAndRenewedBeforeTheyEnd) {
  Start({.auth = Auth::kBearer, .token_seconds = 60});
  Client client({}, Login("davit", "secret"));
  const auto source = Open(client)->OpenBlob(blob_);
  storage::SourceRead how;
  for (int i = 0; i < 5; ++i) DAVIT_OK(ReadAll(*source, {0, 100}, how));
  EXPECT_EQ(CountRequests("/token"), 1);
  client.clock.Advance(std::chrono::seconds(55));  // not over yet, but soon
  DAVIT_OK(ReadAll(*source, {0, 100}, how));
  EXPECT_EQ(CountRequests("/token"), 2);
  int refused = 0;
  for (const LoggedRequest& request : fake_->requests()) refused += request.status == 401 ? 1 : 0;
  EXPECT_EQ(refused, 1);  // the first request, which learnt the challenge
}

TEST_F(FaultTest, ATokenThatEndsInMidReadIsRenewed) {
  Start({.auth = Auth::kBearer});
  Client client({}, Login("davit", "secret"));
  const auto source = Open(client)->OpenBlob(blob_);
  storage::SourceRead how;
  std::string got;
  for (std::uint64_t at = 0; at < layer_.size(); at += 100'000) {
    if (at == 200'000) fake_->ExpireTokens();
    const auto piece = ReadAll(*source, {at, 100'000}, how);
    DAVIT_OK(piece);
    got += *piece;
  }
  EXPECT_TRUE(got == layer_);
  EXPECT_EQ(CountRequests("/token"), 2);
}

TEST_F(FaultTest, ATokenRefusedWhileAWholeBlobResumesIsRenewed) {
  Start({.auth = Auth::kBearer});
  Client client({}, Login("davit", "secret"));
  fake_->SetFault({.kind = Kind::kReset, .path = "/blobs/", .skip = 1, .offset = 100'000});
  fake_->SetFault({.kind = Kind::kExpiredToken, .path = "/blobs/", .skip = 1});
  const auto got = Whole(*Open(client));
  DAVIT_OK(got);
  EXPECT_TRUE(*got == layer_);
}

TEST_F(FaultTest, ManyReadersAskForOneToken) {
  Start({.auth = Auth::kBearer, .latency_ms = 20});
  Client client({}, Login("davit", "secret"));
  const auto repository = Open(client);
  const auto source = repository->OpenBlob(blob_);
  std::atomic<int> failed{0};
  std::vector<std::jthread> readers;
  for (int i = 0; i < 16; ++i) {
    readers.emplace_back([&, i] {
      storage::SourceRead how;
      const ByteRange range{static_cast<std::uint64_t>(i) * 1000, 1000};
      const auto got = ReadAll(*source, range, how);
      if (!got.ok() || *got != layer_.substr(range.offset, range.length)) ++failed;
    });
  }
  readers.clear();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(CountRequests("/token"), 1);
}

TEST_F(FaultTest, TokensOfOneUserAreNotForAnother) {
  Start({.auth = Auth::kBearer});
  Client client({}, Login("davit", "secret"));
  storage::SourceRead how;
  DAVIT_OK(ReadAll(*Open(client)->OpenBlob(blob_), {0, 10}, how));
  const auto reference = registry::Reference::Parse(fake_->host() + "/app:v1").value();
  const auto other = client.registries->Open(reference, Login("mallory", "guess")).value();
  EXPECT_EQ(ReadAll(*other->OpenBlob(blob_), {0, 10}, how).error().code(), Code::kUnauthenticated);
}

TEST_F(FaultTest, WrongPasswordsAreSaidOnce) {
  for (const Auth auth : {Auth::kBasic, Auth::kBearer}) {
    Start({.auth = auth});
    Client client({}, Login("davit", "wrong-password"));
    const auto got = Open(client)->GetManifest(ctx_, "v1");
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.error().code(), Code::kUnauthenticated) << got.error().ToString();
    EXPECT_EQ(got.error().ToString().find("wrong-password"), std::string::npos);
    EXPECT_LE(CountRequests("/"), 4);
  }
}

TEST_F(FaultTest, RealmsMustBeTrustworthy) {
  Start({.auth = Auth::kBearer, .realm = "http://169.254.169.254/latest/meta-data"});
  Client client({}, Login("davit", "secret"));
  const auto got = Open(client)->GetManifest(ctx_, "v1");
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code(), Code::kUnauthenticated);
  EXPECT_NE(got.error().message().find("link-local"), std::string::npos);
}

TEST_F(FaultTest, AuthorizationStaysAtHomeOnRedirects) {
  Start({.auth = Auth::kBasic});
  FakeRegistry::Options plain;
  const auto store = FakeRegistry::Start(plain);
  store->AddBlob("app", layer_);
  Client client({}, Login("davit", "secret"));
  const std::string target =
      "http://" + store->host() + "/v2/app/blobs/" + blob_.digest + "?signature=hidden";
  fake_->SetFault({.kind = Kind::kRedirect, .path = "/blobs/", .times = -1, .location = target});
  const auto source = Open(client)->OpenBlob(blob_);
  storage::SourceRead how;
  for (int i = 0; i < 3; ++i) {
    const auto got = ReadAll(*source, {10, 1000}, how);
    DAVIT_OK(got);
    EXPECT_EQ(*got, layer_.substr(10, 1000));
  }
  EXPECT_EQ(how.served_by, "http://" + fake_->host());
  ASSERT_EQ(store->requests().size(), 3U);
  for (const LoggedRequest& request : store->requests()) EXPECT_EQ(request.authorization, "");
  const int asked = CountRequests("/blobs/");
  EXPECT_LE(asked, 2);  // the target is remembered: 401, 307, then straight there

  // What it remembers has gone bad: asked anew, and the signed query stays out of messages.
  store->SetFault({.path = "/blobs/", .times = 1, .status = 403});
  DAVIT_OK(ReadAll(*source, {10, 1000}, how));
  EXPECT_EQ(CountRequests("/blobs/"), asked + 1);
  store->SetFault({.path = "/blobs/", .times = -1, .status = 403});
  const auto refused = ReadAll(*source, {10, 1000}, how);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().ToString().find("hidden"), std::string::npos)
      << refused.error().ToString();
}

TEST_F(FaultTest, RedirectsDoNotGoRoundForEver) {
  Start();
  Client client;
  fake_->SetFault({.kind = Kind::kRedirect,
                   .path = "/manifests/",
                   .times = -1,
                   .location = "/v2/app/manifests/v1"});
  registry::RegistryOptions options;
  const auto got = Open(client)->GetManifest(ctx_.WithTimeout(std::chrono::seconds(20)), "v1");
  ASSERT_FALSE(got.ok());
  EXPECT_NE(got.error().message().find("redirects"), std::string::npos) << got.error().ToString();
}

TEST_F(FaultTest, UploadsResumeAfterErrors) {
  Start();
  registry::RegistryOptions options;
  options.upload_chunk_bytes = 256 << 10;
  const registry::BlobContent big = ContentOf(Noise(1'500'000, 9));
  const registry::BlobContent small = ContentOf(Noise(1000, 10));
  for (const int status : {416, 500, 429}) {
    Start();
    Client client(options);
    fake_->SetFault({.path = "/uploads/", .method = "PATCH", .skip = 1, .status = status});
    fake_->SetFault({.path = "/uploads/", .method = "PUT", .status = status == 416 ? 503 : status});
    DAVIT_OK(Open(client)->PushBlob(ctx_, big));
    EXPECT_TRUE(fake_->HasBlob(big.descriptor.digest));
    fake_->SetFault({.path = "/uploads/", .method = "PUT", .status = 503});
    DAVIT_OK(Open(client)->PushBlob(ctx_, small));
    EXPECT_TRUE(fake_->HasBlob(small.descriptor.digest));
  }
}

TEST_F(FaultTest, SilenceAndDripsEnd) {
  Start();
  registry::RegistryOptions options;
  options.stall_timeout = std::chrono::milliseconds(200);
  options.retries = 0;
  Client client(options);
  const auto source = Open(client)->OpenBlob(blob_);
  storage::SourceRead how;
  fake_->SetFault({.kind = Kind::kHang, .path = "/blobs/"});
  EXPECT_EQ(ReadAll(*source, {0, 100}, how).error().code(), Code::kDeadlineExceeded);
  fake_->SetFault({.kind = Kind::kDrip, .path = "/blobs/", .bytes_per_second = 1000});
  const auto late =
      ReadAll(*source, {0, 100'000}, how, ctx_.WithTimeout(std::chrono::milliseconds(300)));
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code(), Code::kDeadlineExceeded);
}

}  // namespace
}  // namespace davit::testing
