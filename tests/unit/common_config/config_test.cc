#include "common/config/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "common/base/fd.h"
#include "common/json/json.h"

namespace davit::config {
namespace {

GetEnv Env(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const std::string& name) -> std::optional<std::string> {
    const auto it = variables.find(name);
    if (it == variables.end()) return std::nullopt;
    return it->second;
  };
}

Sources With(std::map<std::string, std::string> variables = {},
             std::vector<std::pair<std::string, std::string>> overrides = {}) {
  Sources sources;
  sources.env = Env(std::move(variables));
  sources.overrides = std::move(overrides);
  return sources;
}

// The error of a TOML text; empty when there is none.
std::string ErrorOf(std::string_view toml) {
  const auto loaded = LoadText(toml, "toml", With());
  return loaded ? "" : loaded.error().ToString();
}

TEST(ConfigTest, DefaultsNeedNoFile) {
  const auto loaded = Load(With());
  ASSERT_TRUE(loaded.ok()) << loaded.error().ToString();
  EXPECT_EQ(loaded->config.node.state_dir, "/var/lib/davit");
  EXPECT_EQ(loaded->config.api.socket, "/run/davit/davitd.sock");
  EXPECT_EQ(CacheDirectory(loaded->config), "/var/lib/davit/cache");
  EXPECT_TRUE(loaded->config.fuse.allow_other);
}

TEST(ConfigTest, WithoutRootEverythingIsTheUsers) {
  const Config plain = DefaultConfig(false, Env({{"HOME", "/home/u"}}));
  EXPECT_EQ(plain.node.state_dir, "/home/u/.local/state/davit");
  EXPECT_FALSE(plain.fuse.allow_other);
  const Config xdg = DefaultConfig(
      false,
      Env({{"HOME", "/home/u"}, {"XDG_STATE_HOME", "/s"}, {"XDG_RUNTIME_DIR", "/run/user/7"}}));
  EXPECT_EQ(xdg.node.state_dir, "/s/davit");
  EXPECT_EQ(xdg.api.socket, "/run/user/7/davit/davitd.sock");
}

TEST(ConfigTest, LaterSourcesWin) {
  const char* toml =
      "version = 1\n[cache]\nbudget_bytes = \"1GiB\"\nfetch_threads = 3\n[log]\nlevel = \"warn\"\n";
  auto loaded = LoadText(toml, "toml",
                         With({{"DAVIT_CACHE_BUDGET_BYTES", "2GiB"}, {"DAVIT_LOG_LEVEL", "error"}},
                              {{"cache.budget_bytes", "3GiB"}}));
  ASSERT_TRUE(loaded.ok()) << loaded.error().ToString();
  EXPECT_EQ(loaded->config.cache.budget_bytes, 3ULL << 30);  // command line
  EXPECT_EQ(loaded->config.log.level, "error");              // environment
  EXPECT_EQ(loaded->config.cache.fetch_threads, 3);          // file
  EXPECT_EQ(loaded->config.fuse.threads, Config{}.fuse.threads);
}

TEST(ConfigTest, JsonAndTomlSayTheSame) {
  const auto toml = LoadText(
      "[registry]\nplain_http_hosts = [\"a:1\", \"b:2\"]\nskip_verify = true\n"
      "[scheduler]\nbackoff_min = \"50ms\"\n[cache]\nhigh_watermark = 0.9\n",
      "toml", With());
  const auto json = LoadText(
      R"({"version":1,"registry":{"plain_http_hosts":["a:1","b:2"],"skip_verify":true},
          "scheduler":{"backoff_min":"50ms"},"cache":{"high_watermark":0.9}})",
      "json", With());
  ASSERT_TRUE(toml.ok()) << toml.error().ToString();
  ASSERT_TRUE(json.ok()) << json.error().ToString();
  EXPECT_EQ(ToJson(toml->config), ToJson(json->config));
  EXPECT_EQ(toml->config.registry.plain_http_hosts, (std::vector<std::string>{"a:1", "b:2"}));
  EXPECT_EQ(toml->config.scheduler.backoff_min, std::chrono::milliseconds(50));
}

TEST(ConfigTest, ListsInTheEnvironmentAreSeparatedByCommas) {
  const auto loaded = Load(With({{"DAVIT_REGISTRY_PLAIN_HTTP_HOSTS", " a:1 ,b:2,"}}));
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->config.registry.plain_http_hosts, (std::vector<std::string>{"a:1", "b:2"}));
}

TEST(ConfigTest, AnUnknownKeyIsRefusedWithTheNearestOne) {
  const std::string error = ErrorOf("[cache]\nbugdet_bytes = \"1GiB\"\n");
  EXPECT_NE(error.find("cache.bugdet_bytes"), std::string::npos) << error;
  EXPECT_NE(error.find("line 2"), std::string::npos) << error;
  EXPECT_NE(error.find("did you mean \"cache.budget_bytes\""), std::string::npos) << error;
  // The right field in a wrong section.
  EXPECT_NE(ErrorOf("[node]\nbudget_bytes = 1\n").find("cache.budget_bytes"), std::string::npos);
  EXPECT_NE(ErrorOf("[cach]\n").find("unknown key"), std::string::npos);
  EXPECT_NE(ErrorOf("threads = 1\n").find("unknown key"), std::string::npos);
  EXPECT_EQ(NearestKey("zzzzzzzzzzzzzz"), std::nullopt);
  EXPECT_FALSE(Load(With({}, {{"cache.budget", "1"}})).ok());
}

TEST(ConfigTest, ValuesAreChecked) {
  const std::map<std::string, std::string> bad = {
      {"[cache]\nfetch_threads = 0\n", "out of range"},
      {"[cache]\nfetch_threads = \"many\"\n", "whole number"},
      {"[cache]\nbudget_bytes = \"many\"\n", "not a size"},
      {"[cache]\nfill = \"maybe\"\n", "neither true nor false"},
      {"[cache]\nhigh_watermark = 1.5\n", "out of range"},
      {"[log]\nlevel = \"loud\"\n", "trace|debug"},
      {"[fuse]\nhung_io_after = 5\n", "unit"},
      {"[node]\nstate_dir = \"relative\"\n", "absolute"},
      {"[registry]\nca_files = [1]\n", "texts only"},
      {"[log]\nlevel = [\"info\"]\n", "one value"},
      {"[log.level]\nx = 1\n", "expected"},
      {"[cache]\nlow_watermark = 0.99\n", "low_watermark"},
      {"[registry]\nclient_cert_file = \"/c\"\n", "client_key_file"},
      {"[fuse]\nthreads = 100\n", "max_threads"},
      {"version = 2\n", "version 2"},
      {"[cache\n", "line 1"},
  };
  for (const auto& [text, expected] : bad) {
    const std::string error = ErrorOf(text);
    EXPECT_NE(error.find(expected), std::string::npos) << text << " -> " << error;
  }
  EXPECT_FALSE(Load(With({{"DAVIT_CACHE_FETCH_THREADS", "-1"}})).ok());
}

TEST(ConfigTest, HostileFilesAreRefused) {
  EXPECT_FALSE(LoadText("[]", "json", With()).ok());
  EXPECT_FALSE(LoadText("{\"cache\":{\"fill\":{}}}", "json", With()).ok());
  EXPECT_FALSE(LoadText(std::string(100'000, '['), "json", With()).ok());
  EXPECT_FALSE(LoadText(std::string(100'000, '['), "toml", With()).ok());
  std::string nul = "[node]\nid = \"a";
  nul += "\\u0000b\"\n";
  EXPECT_FALSE(LoadText(nul, "toml", With()).ok());
}

// Every text gives a configuration or an error: no crash, no hang.
TEST(ConfigTest, DamagedTomlIsRefusedWithoutACrash) {
  const std::string good =
      "version = 1\n[cache]\nbudget_bytes = \"1GiB\"\nfill = true\n"
      "[registry]\nca_files = [\"/a\", '/b']\n# end\n";
  const std::string odd = "[]{}=\"'.,#\n\\ \t\x01\xff_-+0ax";
  int refused = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const char c : odd) {
      std::string text = good;
      text[at] = c;
      refused += LoadText(text, "toml", With()).ok() ? 0 : 1;
    }
    refused += LoadText(good.substr(0, at), "toml", With()).ok() ? 0 : 1;
  }
  EXPECT_GT(refused, 1000);
}

TEST(ConfigTest, FilesAreReadByTheirEnding) {
  const auto dir = TempDir::Create("config");
  ASSERT_TRUE(dir.ok());
  const std::string path = dir->path() + "/x.toml";
  ASSERT_TRUE(WriteFileAtomic(path, AsBytes("[log]\nlevel = \"debug\"\n")).ok());
  Sources sources = With();
  sources.file = path;
  const auto loaded = Load(sources);
  ASSERT_TRUE(loaded.ok()) << loaded.error().ToString();
  EXPECT_EQ(loaded->config.log.level, "debug");
  EXPECT_EQ(loaded->file, path);
  sources.file = dir->path() + "/x.yaml";
  EXPECT_EQ(Load(sources).error().code(), Code::kInvalidArgument);
  sources.file = dir->path() + "/missing.toml";
  EXPECT_NE(Load(sources).error().ToString().find("missing.toml"), std::string::npos);
}

TEST(ConfigTest, DumpHasEveryKeyAndNoSecret) {
  Config config = DefaultConfig(true, Env({}));
  config.registry.proxy = "http://user:hunter2@proxy:3128/x";
  const std::string text = ToJson(config);
  EXPECT_EQ(text.find("hunter2"), std::string::npos);
  EXPECT_NE(text.find("@proxy:3128/x"), std::string::npos);
  const auto parsed = json::Parse(text, "dump");
  ASSERT_TRUE(parsed.ok());
  for (const std::string& key : Keys()) {
    const std::size_t dot = key.find('.');
    EXPECT_TRUE(parsed->at(key.substr(0, dot)).contains(key.substr(dot + 1))) << key;
  }
}

TEST(ConfigTest, DumpReadsBack) {
  Config config = DefaultConfig(true, Env({}));
  config.cache.budget_bytes = 123'456'789;
  config.scheduler.demand_patience = std::chrono::milliseconds(61'001);
  const auto again = LoadText(ToJson(config), "json", With());
  ASSERT_TRUE(again.ok()) << again.error().ToString();
  EXPECT_EQ(ToJson(again->config), ToJson(config));
}

TEST(ConfigTest, ReferencePageIsCurrent) {
  const char* source = std::getenv("DAVIT_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  const auto page = ReadFile(std::string(source) + "/docs/configuration.md");
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(*page, ReferenceMarkdown())
      << "write it again: davitd --config-reference > docs/configuration.md";
}

TEST(ConfigTest, EnvironmentNames) {
  EXPECT_EQ(EnvName("cache.budget_bytes"), "DAVIT_CACHE_BUDGET_BYTES");
  ::setenv("DAVIT_CACHE_BUGDET_BYTES", "1", 1);
  ::setenv("DAVIT_NODE_SERVICE_HOST", "10.0.0.1", 1);  // what Kubernetes sets for a service
  const auto loaded = Load(With());
  ::unsetenv("DAVIT_CACHE_BUGDET_BYTES");
  ::unsetenv("DAVIT_NODE_SERVICE_HOST");
  ASSERT_TRUE(loaded.ok());
  ASSERT_EQ(loaded->warnings.size(), 1U);
  EXPECT_NE(loaded->warnings[0].find("DAVIT_CACHE_BUDGET_BYTES"), std::string::npos);
}

}  // namespace
}  // namespace davit::config
