#pragma once
// Clients and content for the registry tests.

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>

#include "common/digest/digest.h"
#include "storage/registry/client.h"

namespace davit::testing {

/// Sleeps are remembered and take no time; the time moves on by them.
class SkippingClock final : public Clock {
 public:
  TimePoint Now() const override { return std::chrono::steady_clock::now() + Duration(ahead_); }
  std::chrono::system_clock::time_point WallNow() const override {
    return std::chrono::system_clock::now();
  }
  bool SleepFor(Duration duration, std::stop_token stop) override {
    Advance(duration);
    return !stop.stop_requested();
  }
  void Advance(Duration duration) { ahead_ += duration.count(); }
  Duration skipped() const { return Duration(ahead_); }

 private:
  std::atomic<Duration::rep> ahead_{0};
};

inline std::string Noise(std::size_t size, unsigned seed) {
  std::string out(size, '\0');
  std::uint32_t state = seed * 2654435761U + 1;
  for (char& c : out) {
    state = state * 1664525U + 1013904223U;
    c = static_cast<char>(state >> 24);
  }
  return out;
}

inline registry::BlobContent ContentOf(const std::string& text) {
  registry::BlobContent out;
  out.descriptor = oci::DescribeContent("application/octet-stream", text);
  out.read_at = [text](std::uint64_t offset, MutableBytes piece) -> Result<std::size_t> {
    const std::size_t n = std::min(piece.size(), text.size() - offset);
    std::memcpy(piece.data(), text.data() + offset, n);
    return n;
  };
  return out;
}

/// One client with its own clock.
struct Client {
  explicit Client(registry::RegistryOptions options = {},
                  std::shared_ptr<registry::CredentialProvider> credentials = nullptr,
                  bool plain = true) {
    options.plain_http = plain;
    registries = registry::Registries::Create(options, *http, clock, std::move(credentials));
  }
  std::shared_ptr<registry::Repository> Open(const std::string& name) {
    auto reference = registry::Reference::Parse(name);
    if (!reference.ok()) throw std::runtime_error(reference.error().ToString());
    auto out = registries->Open(*reference);
    if (!out.ok()) throw std::runtime_error(out.error().ToString());
    return *out;
  }
  std::unique_ptr<http::Client> http = http::Client::Create({});
  SkippingClock clock;
  std::unique_ptr<registry::Registries> registries;
};

inline std::shared_ptr<registry::CredentialProvider> Login(const std::string& user,
                                                           const std::string& password) {
  registry::Credential credential;
  credential.username = user;
  credential.password = Secret(password);
  return registry::FixedCredential(std::move(credential));
}

inline Result<std::string> ReadAll(storage::BlobSource& source, ByteRange range,
                                   storage::SourceRead& how, const Context& ctx = {}) {
  std::string out;
  const Status status = source.Read(ctx, range, how, [&](Bytes data) -> Status {
    out += AsText(data);
    return {};
  });
  if (!status.ok()) return status.error();
  return out;
}

#define DAVIT_OK(expr)                                                                  \
  do {                                                                                  \
    const auto& davit_result = (expr);                                                  \
    ASSERT_TRUE(davit_result.ok()) << #expr << ": " << davit_result.error().ToString(); \
  } while (false)

}  // namespace davit::testing
