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

std::shared_ptr<registry::CredentialProvider> MountCredentials::own() const {
  const MutexLock lock(mutex_);
  return own_;
}

Result<registry::Credential> MountCredentials::Get(const Context& ctx, const std::string& host,
                                                   const std::string& repository) {
  if (const auto provider = own()) {
    DAVIT_TRY_ASSIGN(registry::Credential found, provider->Get(ctx, host, repository));
    if (!found.anonymous()) return found;
  }
  if (configured_ == nullptr) return registry::Credential{};
  return configured_->Get(ctx, host, repository);
}

Result<registry::Credential> MountCredentials::GetForOther(const Context& ctx,
                                                           const std::string& host,
                                                           const std::string& repository) {
  if (const auto provider = own()) {
    DAVIT_TRY_ASSIGN(registry::Credential found, provider->GetForOther(ctx, host, repository));
    if (!found.anonymous()) return found;
  }
  if (configured_ == nullptr) return registry::Credential{};
  return configured_->GetForOther(ctx, host, repository);
}

}  // namespace davit::daemon
