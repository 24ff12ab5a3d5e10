// The fake registry as a program: serves an OCI layout with the latency and bandwidth of a link.

#include <signal.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "common/base/fd.h"
#include "common/json/json.h"
#include "tests/support/fake_registry/fake_registry.h"

namespace {

int Usage() {
  std::fputs(
      "usage: fake-registry --root LAYOUT --name REPOSITORY [--port N] [--latency-ms N] "
      "[--bytes-per-second N]\n",
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
  const auto registry = davit::testing::FakeRegistry::Start(options);
  const davit::Status status = Serve(*registry, flags["--root"], flags["--name"]);
  if (!status.ok()) {
    std::fprintf(stderr, "fake-registry: %s\n", status.error().ToString().c_str());
    return 1;
  }
  std::printf("port %d\n", registry->port());
  std::fflush(stdout);
  int caught = 0;
  sigwait(&signals, &caught);
  return 0;
}
