// Mirrors: their order, their failures, what they may know, and hosts.toml files that change.

#include "tests/integration/registry/fault_fixture.h"

namespace davit::testing {
namespace {

using Auth = FakeRegistry::Options::Auth;

TEST_F(FaultTest, MirrorsInOrderThenTheRegistry) {
  Start();
  const auto mirror = FakeRegistry::Start({});
  mirror->AddBlob("app", layer_);
  const TempDir dir = *TempDir::Create("davit-hosts-");
  const std::string own = dir.path() + "/127.0.0.1_" + std::to_string(fake_->port()) + "_";
  DAVIT_OK(MakeDirectories(own));
  const std::string toml = "server = \"http://" + fake_->host() + "\"\n[host.\"http://" +
                           mirror->host() + "\"]\ncapabilities = [\"pull\"]\n";
  DAVIT_OK(WriteFileAtomic(own + "/hosts.toml", AsBytes(toml)));
  registry::RegistryOptions options;
  options.hosts_dir = dir.path();
  Client client(options);
  const auto repository = Open(client);
  const auto source = repository->OpenBlob(blob_);
  storage::SourceRead how;
  DAVIT_OK(ReadAll(*source, {0, 100}, how));
  EXPECT_EQ(how.served_by, "http://" + mirror->host());
  EXPECT_NE(mirror->requests().at(0).query.find("ns="), std::string::npos);

  how.avoid_endpoint = how.served_by;
  DAVIT_OK(ReadAll(*source, {0, 100}, how));
  EXPECT_EQ(how.served_by, "http://" + fake_->host());

  how = {};
  mirror->SetFault({.path = "/blobs/", .times = 1, .status = 500});
  DAVIT_OK(ReadAll(*source, {0, 100}, how));
  EXPECT_EQ(how.served_by, "http://" + fake_->host());
  mirror->ClearLog();
  DAVIT_OK(ReadAll(*source, {0, 100}, how));  // skipped for a while
  EXPECT_TRUE(mirror->requests().empty());
  client.clock.Advance(std::chrono::seconds(11));
  DAVIT_OK(ReadAll(*source, {0, 100}, how));
  EXPECT_EQ(how.served_by, "http://" + mirror->host());

  mirror->ClearLog();
  DAVIT_OK(repository->PushBlob(ctx_, ContentOf("pushed")));
  EXPECT_TRUE(mirror->requests().empty());  // never pushed to
  EXPECT_FALSE(mirror->HasBlob(ContentOf("pushed").descriptor.digest));
}

// A mirror that asks for a login gets no more than what is meant for its own host.
TEST_F(FaultTest, CredentialsOfTheRegistryAreNotForItsMirrors) {
  for (const Auth auth : {Auth::kBasic, Auth::kBearer}) {
    Start({.auth = auth});
    FakeRegistry::Options options_of_mirror{.auth = auth};
    options_of_mirror.users = {{"davit", "secret"}, {"reader", "mirrored"}};
    const auto mirror = FakeRegistry::Start(options_of_mirror);
    mirror->AddBlob("app", layer_);
    const TempDir dir = *TempDir::Create("davit-hosts-");
    WriteMirror(dir.path(), mirror->host());
    registry::RegistryOptions options;
    options.hosts_dir = dir.path();
    storage::SourceRead how;
    ::setenv("IMAGE_PULL_AUTH", "ZGF2aXQ6c2VjcmV0", 1);  // davit:secret
    for (int i = 0; i < 2; ++i) {
      Client client(options, i == 0 ? Login("davit", "secret") : registry::EnvironmentAuth());
      DAVIT_OK(ReadAll(*Open(client)->OpenBlob(blob_), {0, 100}, how));
      EXPECT_EQ(how.served_by, "http://" + fake_->host());
    }
    ::unsetenv("IMAGE_PULL_AUTH");
    EXPECT_FALSE(mirror->requests().empty());
    for (const LoggedRequest& request : mirror->requests()) {
      EXPECT_TRUE(request.authorization.empty()) << request.path;
      EXPECT_EQ(request.query.find("davit"), std::string::npos) << request.query;
    }

    // What is said of the mirror's own host goes there.
    auto config = registry::DockerConfigText(
        Secret(R"({"auths":{")" + mirror->host() + R"(":{"auth":"cmVhZGVyOm1pcnJvcmVk"}}})"));
    DAVIT_OK(config);
    Client client(options, *std::move(config));
    DAVIT_OK(ReadAll(*Open(client)->OpenBlob(blob_), {0, 100}, how));
    EXPECT_EQ(how.served_by, "http://" + mirror->host());
  }
}

TEST_F(FaultTest, AChangedHostsFileCountsWithoutARestart) {
  Start();
  const auto first = FakeRegistry::Start({});
  const auto second = FakeRegistry::Start({});
  first->AddBlob("app", layer_);
  second->AddBlob("app", layer_);
  const TempDir dir = *TempDir::Create("davit-hosts-");
  registry::RegistryOptions options;
  options.hosts_dir = dir.path();
  Client client(options);
  const auto source = Open(client)->OpenBlob(blob_);
  const auto served_by = [&]() -> std::string {
    storage::SourceRead how;
    const auto got = ReadAll(*source, {0, 100}, how);
    return got.ok() ? how.served_by : got.error().ToString();
  };
  EXPECT_EQ(served_by(), "http://" + fake_->host());

  WriteMirror(dir.path(), first->host());
  EXPECT_EQ(served_by(), "http://" + fake_->host());  // looked at once a second
  client.clock.Advance(std::chrono::seconds(2));
  EXPECT_EQ(served_by(), "http://" + first->host());

  WriteMirror(dir.path(), second->host());
  client.clock.Advance(std::chrono::seconds(2));
  EXPECT_EQ(served_by(), "http://" + second->host());

  // What cannot be used changes nothing, and is said once.
  ::testing::internal::CaptureStderr();
  DAVIT_OK(WriteFileAtomic(OwnDirectory(dir.path()) + "/hosts.toml", AsBytes("server = [")));
  for (int i = 0; i < 3; ++i) {
    client.clock.Advance(std::chrono::seconds(2));
    EXPECT_EQ(served_by(), "http://" + second->host());
  }
  const std::string log = ::testing::internal::GetCapturedStderr();
  const std::string_view warning = "cannot be used; the ones before stay in use";
  const std::size_t at = log.find(warning);
  EXPECT_NE(at, std::string::npos) << log;
  EXPECT_EQ(log.find(warning, at + 1), std::string::npos) << log;

  DAVIT_OK(RemoveTree(OwnDirectory(dir.path())));
  client.clock.Advance(std::chrono::seconds(2));
  EXPECT_EQ(served_by(), "http://" + fake_->host());
}

}  // namespace
}  // namespace davit::testing
