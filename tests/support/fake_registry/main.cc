// The fake registry as a program: serves an OCI layout with the latency and bandwidth of a link.

#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "common/base/fd.h"
#include "common/json/json.h"
#include "tests/support/fake_registry/control.h"
#include "tests/support/fake_registry/fake_registry.h"

namespace {

int Usage() {
  std::fputs(
      "usage: fake-registry --root LAYOUT --name REPOSITORY [--port N] [--latency-ms N] "
      "[--bytes-per-second N] [--auth none|basic|bearer] [--user NAME:PASSWORD] "
      "[--token-seconds N] [--hold-uploads N] [--control yes]\n"
      "  --control yes: commands on standard input, see control.h; its end is the program's\n",
      stderr);
  return 2;
}

davit::Status Serve(davit::testing::FakeRegistry& registry, const std::string& root,
                    const std::string& name) {
  const std::string blobs = root + "/blobs/sha256";
  DAVIT_TRY_ASSIGN(const auto files, davit::ListDirectory(blobs));
  for (const std::string& file : files) registry.AddBlobFile("sha256:" + file, blobs + "/" + file);
  DAVIT_TRY_ASSIGN(const std::string text, davit::ReadFile(root + "/index.json"));
  DAVIT_TRY_ASSIGN(const nlohmann::json index, davit::json::Parse(text, "index.json"));
  for (const nlohmann::json& entry : index.value("manifests", nlohmann::json::array())) {
    const std::string digest = entry.value("digest", "");
    DAVIT_TRY_ASSIGN(const std::string manifest,
                     davit::ReadFile(blobs + "/" + digest.substr(digest.find(':') + 1)));
    const auto annotations = entry.value("annotations", nlohmann::json::object());
    registry.AddManifest(name, annotations.value("org.opencontainers.image.ref.name", ""),
                         entry.value("mediaType", ""), manifest);
  }
  return {};
}

davit::Status ParseLogin(std::map<std::string, std::string>& flags,
                         davit::testing::FakeRegistry::Options& options) {
  using Auth = davit::testing::FakeRegistry::Options::Auth;
  static const std::map<std::string, Auth> kKinds = {
      {"", Auth::kNone}, {"none", Auth::kNone}, {"basic", Auth::kBasic}, {"bearer", Auth::kBearer}};
  const auto kind = kKinds.find(flags["--auth"]);
  if (kind == kKinds.end())
    return davit::Error(davit::Code::kInvalidArgument, "--auth: none, basic or bearer");
  options.auth = kind->second;
  if (const std::string user = flags["--user"]; !user.empty()) {
    const std::size_t colon = std::min(user.find(':'), user.size());
    options.users[user.substr(0, colon)] = user.substr(std::min(colon + 1, user.size()));
  }
  if (flags.contains("--token-seconds"))
    options.token_seconds = std::atoi(flags["--token-seconds"].c_str());
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  davit::testing::FakeRegistry::Options options;
  std::map<std::string, std::string> flags;
  for (int i = 1; i + 1 < argc; i += 2) flags[argv[i]] = argv[i + 1];
  if (argc % 2 == 0 || !flags.contains("--root") || !flags.contains("--name")) return Usage();
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);  // sendfile has no MSG_NOSIGNAL; clients may leave at any time
  options.port = std::atoi(flags["--port"].c_str());
  options.latency_ms = std::atoi(flags["--latency-ms"].c_str());
  options.bytes_per_second = std::strtoull(flags["--bytes-per-second"].c_str(), nullptr, 10);
  options.hold_uploads = std::atoi(flags["--hold-uploads"].c_str());
  davit::Status status = ParseLogin(flags, options);
  if (!status.ok()) {
    std::fprintf(stderr, "fake-registry: %s\n", status.error().ToString().c_str());
    return Usage();
  }
  const auto registry = davit::testing::FakeRegistry::Start(options);
  status = Serve(*registry, flags["--root"], flags["--name"]);
  if (!status.ok()) {
    std::fprintf(stderr, "fake-registry: %s\n", status.error().ToString().c_str());
    return 1;
  }
  std::printf("port %d\n", registry->port());
  std::fflush(stdout);
  if (flags["--control"] == "yes") {
    davit::testing::RunControl(*registry);
    return 0;
  }
  int caught = 0;
  sigwait(&signals, &caught);
  return 0;
}
