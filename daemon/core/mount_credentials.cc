#include "daemon/core/mount_credentials.h"

namespace davit::daemon {

Status MountCredentials::Renew(const Secret& registry_auth) {
  if (registry_auth.empty()) return {};
  auto own = registry::DockerConfigText(registry_auth);
  if (!own) return std::move(own).error().WithContext("registry_auth");
  const MutexLock lock(mutex_);
  own_ = *std::move(own);
  return {};
}

Result<registry::Credential> MountCredentials::Get(const Context& ctx, const std::string& host,
                                                   const std::string& repository) {
  std::shared_ptr<registry::CredentialProvider> own;
  {
    const MutexLock lock(mutex_);
    own = own_;
  }
  if (own != nullptr) {
    DAVIT_TRY_ASSIGN(registry::Credential found, own->Get(ctx, host, repository));
    if (!found.anonymous()) return found;
  }
  if (configured_ == nullptr) return registry::Credential{};
  return configured_->Get(ctx, host, repository);
}

}  // namespace davit::daemon
