// What stands in the way of a connection is named, with its reason and the next step.

#include <functional>

#include "tests/integration/registry/fault_fixture.h"
#include "tests/support/registry_process/registry_process.h"

namespace davit::testing {
namespace {

/// A port of loopback that nobody listens on: it was one's a moment ago.
std::string ClosedPort() {
  const auto fake = FakeRegistry::Start({});
  return fake->host();
}

class HintTest : public FaultTest {
 protected:
  void Expect(Client& client, const std::string& host, Code code,
              const std::vector<std::string>& texts) {
    const auto got = client.Open(host + "/team/app:v1")->GetManifest(ctx_, "v1");
    ASSERT_FALSE(got.ok());
    const std::string text = got.error().ToString();
    EXPECT_EQ(got.error().code(), code) << text;
    EXPECT_FALSE(got.error().hint().empty()) << text;
    EXPECT_NE(text.find(host + "/team/app: get the manifest 'v1'"), std::string::npos) << text;
    for (const std::string& part : texts) EXPECT_NE(text.find(part), std::string::npos) << text;
  }

  registry::RegistryOptions NoRetries() const {
    registry::RegistryOptions options;
    options.retries = 0;
    return options;
  }
};

TEST_F(HintTest, AHostThatDoesNotExist) {
  Client client(NoRetries());
  Expect(client, "no-such-host.invalid", Code::kUnavailable,
         {"Could not resolve host", "check the name of the host", "DNS"});
}

TEST_F(HintTest, ARefusedConnection) {
  Client client(NoRetries());
  Expect(client, ClosedPort(), Code::kUnavailable, {"connect", "check that the server runs"});
}

TEST_F(HintTest, ARegistryThatSpeaksPlainHttp) {
  auto started = RegistryProcess::StartDockerRegistry({});
  if (!started.ok() && started.error().code() == Code::kNotFound)
    GTEST_SKIP() << started.error().ToString();
  DAVIT_OK(started);
  Client client(NoRetries(), nullptr, false);
  Expect(client, (*started)->host(), Code::kUnavailable,
         {"https://" + (*started)->host(), "may not speak TLS", "plain HTTP"});
}

TEST_F(HintTest, AnUnknownAuthority) {
  const TempDir dir = *TempDir::Create("davit-hint-test-");
  RegistryProcess::Options wanted;
  wanted.tls = TestCertificates::Create(dir.path()).value();
  auto started = RegistryProcess::StartDockerRegistry(wanted);
  if (!started.ok() && started.error().code() == Code::kNotFound)
    GTEST_SKIP() << started.error().ToString();
  DAVIT_OK(started);
  Client client(NoRetries(), nullptr, false);
  Expect(client, (*started)->host(), Code::kUnauthenticated,
         {"certificate", "a private CA is named with a CA file"});
}

TEST_F(HintTest, AProxyThatIsAway) {
  registry::RegistryOptions options = NoRetries();
  options.proxy = "http://someone:hushhush@" + ClosedPort();
  Client client(options);
  Expect(client, "reg.example", Code::kUnavailable, {"names the proxy", "NO_PROXY"});
}

}  // namespace
}  // namespace davit::testing
