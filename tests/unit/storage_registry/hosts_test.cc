#include "storage/registry/hosts.h"

#include <gtest/gtest.h>

#include "common/base/fd.h"

namespace davit::registry {
namespace {

TEST(Hosts, ReadsContainerdsFormat) {
  const auto got = ParseHostsToml(R"(
server = "https://upstream.io"
ca = "root.pem"
[host."https://z.mirror.io:5000"]
  capabilities = ["pull"]
  ca = ["a.pem", "/abs/b.pem"]
  client = [["c.pem", "c.key"]]
  skip_verify = true
  [host."https://z.mirror.io:5000".header]
    x-one = "1"
    x-many = ["2", "3"]
[host."http://a.mirror.io/base/"]
[host."https://own.io/custom"]
  override_path = true
  capabilities = ["resolve", "push"]
)",
                                  "/d", "reg.io:443", {});
  ASSERT_TRUE(got.ok()) << got.error().ToString();
  ASSERT_EQ(got->size(), 4U);
  const Endpoint& z = (*got)[0];  // in the order of the file
  EXPECT_EQ(z.url.ToString(), "https://z.mirror.io:5000/v2");
  EXPECT_TRUE(z.mirror && z.can_pull && !z.can_resolve && z.tls.skip_verify);
  EXPECT_EQ(z.tls.ca_files, (std::vector<std::string>{"/d/a.pem", "/abs/b.pem"}));
  EXPECT_EQ(z.tls.client_cert_file, "/d/c.pem");
  EXPECT_EQ(z.tls.client_key_file, "/d/c.key");
  EXPECT_EQ(z.headers.GetAll("x-many").size(), 2U);
  EXPECT_EQ(z.ns, "reg.io:443");
  EXPECT_EQ(z.credential_host, "z.mirror.io:5000");
  EXPECT_EQ((*got)[1].url.ToString(), "http://a.mirror.io/base/v2");
  EXPECT_TRUE((*got)[1].can_pull && (*got)[1].can_resolve);
  EXPECT_EQ((*got)[2].url.path, "/custom");
  EXPECT_TRUE(!(*got)[2].can_pull && (*got)[2].can_resolve);
  const Endpoint& server = (*got)[3];
  EXPECT_EQ(server.url.ToString(), "https://upstream.io/v2");
  EXPECT_FALSE(server.mirror);
  EXPECT_EQ(server.tls.ca_files, std::vector<std::string>{"/d/root.pem"});
}

TEST(Hosts, MistakesAreNamed) {
  for (const char* text :
       {"server = ", "server = 1", "host = 1", "[host]\nx = 1", "[host.\"ftp://x\"]",
        "[host.\"https://u:p@x\"]", "[host.\"https://x\"]\ncapabilities = [\"fly\"]",
        "[host.\"https://x\"]\nskip_verify = \"yes\"", "[host.\"https://x\"]\nca = [1]",
        "[host.\"https://x\".header]\na = \"b\\nc: d\"", "[host.\"\"]"}) {
    const auto got = ParseHostsToml(text, "/d", "reg.io", {});
    EXPECT_FALSE(got.ok()) << text;
    if (!got.ok()) {
      EXPECT_EQ(got.error().code(), Code::kInvalidArgument);
      EXPECT_EQ(got.error().ToString().find("u:p@"), std::string::npos);
    }
  }
}

TEST(Hosts, DirectoriesOfAHost) {
  EXPECT_EQ(HostDirectories("h:5000"), (std::vector<std::string>{"h_5000_", "h:5000", "_default"}));
  EXPECT_EQ(HostDirectories("h"), (std::vector<std::string>{"h", "_default"}));
  EXPECT_EQ(HostDirectories("[::1]:80"),
            (std::vector<std::string>{"[::1]_80_", "[::1]:80", "_default"}));
}

TEST(Hosts, FirstDirectoryThatExistsWins) {
  const TempDir dir = *TempDir::Create("davit-hosts-");
  const HostDefaults plain{.plain_http = true};
  const auto none = LoadEndpoints(dir.path(), "h:5000", plain).value();
  ASSERT_EQ(none.size(), 1U);
  EXPECT_EQ(none[0].url.ToString(), "http://h:5000/v2");
  const auto write = [&](const std::string& name, const std::string& text) {
    ASSERT_TRUE(MakeDirectories(dir.path() + "/" + name).ok());
    ASSERT_TRUE(WriteFileAtomic(dir.path() + "/" + name + "/hosts.toml", AsBytes(text)).ok());
  };
  write("_default", "[host.\"https://d.io\"]\n");
  EXPECT_EQ(LoadEndpoints(dir.path(), "h:5000", {}).value()[0].url.host, "d.io");
  write("h:5000", "[host.\"https://colon.io\"]\n");
  EXPECT_EQ(LoadEndpoints("/nowhere:" + dir.path(), "h:5000", {}).value()[0].url.host, "colon.io");
  write("h_5000_", "bad");
  const auto bad = LoadEndpoints(dir.path(), "h:5000", {});
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.error().message().find("h_5000_/hosts.toml"), std::string::npos);
}

TEST(Hosts, DockerHubAndCertificateFiles) {
  const Endpoint hub = DefaultEndpoint("docker.io", {});
  EXPECT_EQ(hub.url.ToString(), "https://registry-1.docker.io/v2");
  EXPECT_EQ(hub.credential_host, "docker.io");
  const TempDir dir = *TempDir::Create("davit-hosts-");
  ASSERT_TRUE(MakeDirectories(dir.path() + "/h").ok());
  for (const char* name : {"ca.crt", "c.cert", "c.key"})
    ASSERT_TRUE(WriteFileAtomic(dir.path() + "/h/" + name, {}).ok());
  const auto got = LoadEndpoints(dir.path(), "h", {}).value();
  EXPECT_EQ(got[0].tls.ca_files.size(), 1U);
  EXPECT_EQ(got[0].tls.client_key_file, dir.path() + "/h/c.key");
}

}  // namespace
}  // namespace davit::registry
