#pragma once
// Real registries as child processes on loopback: Debian's docker-registry and zot.

#include <memory>
#include <optional>
#include <string>

#include "common/base/fd.h"
#include "common/base/result.h"

namespace davit::testing {

/// A private CA and a server certificate of 127.0.0.1 and localhost, made with openssl.
struct TestCertificates {
  std::string ca, certificate, key;
  static Result<TestCertificates> Create(const std::string& directory);
};

/// User "davit", password "secret" when `login`; https when `tls` is given. Ends with the object.
class RegistryProcess {
 public:
  struct Options {
    bool login = false;
    std::optional<TestCertificates> tls;
  };
  /// kNotFound when the program is not on this machine.
  static Result<std::unique_ptr<RegistryProcess>> StartDockerRegistry(const Options& options);
  static Result<std::unique_ptr<RegistryProcess>> StartZot(const Options& options);
  virtual ~RegistryProcess() = default;
  virtual std::string host() const = 0;  // "127.0.0.1:port"
};

}  // namespace davit::testing
