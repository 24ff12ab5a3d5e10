#include "storage/registry/credentials.h"

#include <cstdlib>

#include "storage/registry/base64.h"

namespace davit::registry {
namespace {

class Fixed final : public CredentialProvider {
 public:
  explicit Fixed(Credential credential) : credential_(std::move(credential)) {}
  Result<Credential> Get(const Context&, const std::string&, const std::string&) override {
    return credential_;
  }
  Result<Credential> GetForOther(const Context&, const std::string&, const std::string&) override {
    return Credential();
  }

 private:
  const Credential credential_;
};

class FromEnvironment final : public CredentialProvider {
 public:
  Result<Credential> Get(const Context&, const std::string&, const std::string&) override {
    const char* text = std::getenv("IMAGE_PULL_AUTH");
    if (text == nullptr || *text == '\0') return Credential();
    Result<std::string> decoded = Base64Decode(text);
    if (!decoded) return Bad(decoded.error().message());
    const std::size_t colon = decoded->find(':');
    if (colon == std::string::npos) return Bad("there is no ':' in what it decodes to");
    Credential out;
    out.username = decoded->substr(0, colon);
    out.password = Secret(decoded->substr(colon + 1));
    return out;
  }
  Result<Credential> GetForOther(const Context&, const std::string&, const std::string&) override {
    return Credential();
  }

 private:
  static Error Bad(const std::string& why) {
    return Error(Code::kInvalidArgument, "the environment variable IMAGE_PULL_AUTH: " + why)
        .WithHint("set it to the base64 of user:password, or unset it");
  }
};

class First final : public CredentialProvider {
 public:
  explicit First(std::vector<std::unique_ptr<CredentialProvider>> all) : all_(std::move(all)) {}
  Result<Credential> Get(const Context& ctx, const std::string& host,
                         const std::string& repository) override {
    for (const std::unique_ptr<CredentialProvider>& provider : all_) {
      DAVIT_TRY_ASSIGN(Credential credential, provider->Get(ctx, host, repository));
      if (!credential.anonymous()) return credential;
    }
    return Credential();
  }
  Result<Credential> GetForOther(const Context& ctx, const std::string& host,
                                 const std::string& repository) override {
    for (const std::unique_ptr<CredentialProvider>& provider : all_) {
      DAVIT_TRY_ASSIGN(Credential credential, provider->GetForOther(ctx, host, repository));
      if (!credential.anonymous()) return credential;
    }
    return Credential();
  }

 private:
  const std::vector<std::unique_ptr<CredentialProvider>> all_;
};

}  // namespace

std::unique_ptr<CredentialProvider> EnvironmentAuth() {
  return std::make_unique<FromEnvironment>();
}

std::unique_ptr<CredentialProvider> FixedCredential(Credential credential) {
  return std::make_unique<Fixed>(std::move(credential));
}

std::unique_ptr<CredentialProvider> FirstOf(std::vector<std::unique_ptr<CredentialProvider>> all) {
  return std::make_unique<First>(std::move(all));
}

}  // namespace davit::registry
