#pragma once
// The credentials of one mount: what came with its request, else what is configured.

#include <memory>
#include <string>

#include "common/base/sync.h"
#include "storage/registry/credentials.h"

namespace davit::daemon {

/// Thread-safe. Lives in memory only: after a restart there is nothing until the next request
/// brings it again.
class MountCredentials final : public registry::CredentialProvider {
 public:
  explicit MountCredentials(std::shared_ptr<registry::CredentialProvider> configured)
      : configured_(std::move(configured)) {}
  /// A config.json's text; empty changes nothing. kInvalidArgument when it is none.
  Status Renew(const Secret& registry_auth);
  Result<registry::Credential> Get(const Context& ctx, const std::string& host,
                                   const std::string& repository) override;
  Result<registry::Credential> GetForOther(const Context& ctx, const std::string& host,
                                           const std::string& repository) override;

 private:
  std::shared_ptr<registry::CredentialProvider> own() const;
  const std::shared_ptr<registry::CredentialProvider> configured_;  // may be null
  mutable Mutex mutex_;
  std::shared_ptr<registry::CredentialProvider> own_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::daemon
