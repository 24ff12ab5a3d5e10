#pragma once
// An image on a registry that misbehaves on demand.

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/base/fd.h"
#include "tests/integration/registry/registry_fixture.h"
#include "tests/support/fake_registry/fake_registry.h"

namespace davit::testing {

class FaultTest : public ::testing::Test {
 protected:
  void Start(FakeRegistry::Options options = {}) {
    options.users = {{"davit", "secret"}};
    fake_ = FakeRegistry::Start(options);
    layer_ = Noise(400'000, 7);
    fake_->AddBlob("app", layer_);
    blob_ = ContentOf(layer_).descriptor;
  }
  std::shared_ptr<registry::Repository> Open(Client& client) {
    return client.Open(fake_->host() + "/app:v1");
  }
  /// Reads the whole blob through ReadBlob.
  Result<std::string> Whole(registry::Repository& repository) {
    std::string out;
    const Status status = repository.ReadBlob(ctx_, blob_, [&](Bytes data) -> Status {
      out += AsText(data);
      return {};
    });
    if (!status.ok()) return status.error();
    return out;
  }
  std::string OwnDirectory(const std::string& hosts_dir) const {
    return hosts_dir + "/127.0.0.1_" + std::to_string(fake_->port()) + "_";
  }
  void WriteMirror(const std::string& hosts_dir, const std::string& mirror) const {
    const std::string own = OwnDirectory(hosts_dir);
    DAVIT_OK(MakeDirectories(own));
    const std::string toml =
        "server = \"http://" + fake_->host() + "\"\n[host.\"http://" + mirror + "\"]\n";
    DAVIT_OK(WriteFileAtomic(own + "/hosts.toml", AsBytes(toml)));
  }
  int CountRequests(const std::string& part) const {
    int n = 0;
    for (const LoggedRequest& request : fake_->requests())
      n += request.path.find(part) != std::string::npos ? 1 : 0;
    return n;
  }

  std::unique_ptr<FakeRegistry> fake_;
  std::string layer_;
  oci::Descriptor blob_;
  Context ctx_;
};

}  // namespace davit::testing
