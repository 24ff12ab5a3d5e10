#include <algorithm>

#include "storage/registry/client.h"
#include "storage/registry/endpoint_list.h"
#include "storage/registry/layout_repository.h"
#include "storage/registry/remote_repository.h"

namespace davit::registry {
namespace {

class AllRegistries final : public Registries {
 public:
  AllRegistries(const RegistryOptions& options, http::Client& http, Clock& clock,
                std::shared_ptr<CredentialProvider> credentials)
      : shared_(std::make_shared<Shared>(options, http, clock)),
        credentials_(std::move(credentials)) {}

  Result<std::shared_ptr<Repository>> Open(
      const Reference& reference, std::shared_ptr<CredentialProvider> credentials) override {
    if (reference.kind == Reference::Kind::kOciLayout)
      return MakeLayoutRepository(reference.repository, shared_->clock);
    const RegistryOptions& options = shared_->options;
    const HostDefaults defaults{
        .tls = options.tls,
        .proxy = options.proxy,
        .plain_http = options.plain_http ||
                      std::find(options.plain_http_hosts.begin(), options.plain_http_hosts.end(),
                                reference.host) != options.plain_http_hosts.end()};
    DAVIT_TRY_ASSIGN(
        std::unique_ptr<EndpointList> endpoints,
        EndpointList::Load(options.hosts_dir, reference.host, defaults, shared_->clock));
    auto session = std::make_shared<Session>(
        shared_, std::move(endpoints), reference.host + "/" + reference.repository,
        reference.repository, credentials != nullptr ? credentials : credentials_);
    return std::shared_ptr<Repository>(std::make_shared<RemoteRepository>(std::move(session)));
  }

 private:
  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<CredentialProvider> credentials_;
};

}  // namespace

std::unique_ptr<Registries> Registries::Create(const RegistryOptions& options, http::Client& http,
                                               Clock& clock,
                                               std::shared_ptr<CredentialProvider> credentials) {
  return std::make_unique<AllRegistries>(options, http, clock, std::move(credentials));
}

}  // namespace davit::registry
