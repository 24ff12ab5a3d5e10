// Small things that registries, token servers and credential helpers say, an image's config, and
// the names that users give images.
// First byte: which of them.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "rafs/convert/image_writer.h"
#include "rafs/convert/source_image.h"
#include "storage/registry/auth.h"
#include "storage/registry/errors.h"
#include "storage/registry/reference.h"
#include "storage/registry/remote_repository.h"
#include "storage/registry/replies.h"
#include "tests/support/fuzz/fuzz_input.h"

namespace {

using davit::registry::ParseGrant;

void Check(bool holds) {
  if (!holds) std::abort();
}

bool Printable(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  }
  return true;
}

void Token(std::string_view text) {
  const auto grant = ParseGrant(text);
  if (!grant.ok()) return;
  // It becomes a header: nothing in it may end the line.
  Check(grant->header.Reveal().starts_with("Bearer ") && Printable(grant->header.Reveal()));
  Check(grant->life >= std::chrono::seconds(1) && grant->life <= std::chrono::hours(12));
}

void ErrorBody(std::string_view text) {
  for (const int status : {200, 401, 404, 429, 500}) {
    const davit::Error error =
        davit::registry::ErrorFromReply({status, {}, std::string(text)}, "ask", {});
    Check(error.message().size() < 300 && Printable(error.message()));
  }
}

void Referrers(std::string_view text) {
  const std::string content(text);
  for (const std::string_view type :
       {davit::oci::kManifest, davit::oci::kIndex, davit::oci::kDockerManifest}) {
    davit::oci::Descriptor referrer;
    std::optional<davit::oci::Descriptor> subject;
    if (!davit::registry::DescribeReferrer(type, content, referrer, subject).ok() || !subject)
      continue;
    // The tag under which it is listed becomes part of a URL.
    Check(davit::registry::CheckName(davit::registry::FallbackTag(subject->digest)).ok());
  }
}

void Link(std::string_view text) {
  static const davit::http::Url kPage{"https", "registry.example", 443, "/v2/a/tags/list"};
  const auto link = davit::registry::NextLink({{"Link", std::string(text)}});
  if (!link) return;
  Check(link->find('>') == std::string::npos);
  Check(Printable(davit::registry::ShownUrl(*link)));
  const auto url = kPage.Resolve(*link);
  if (!url.ok()) return;
  // What it resolves to is read as the same place again, so the check of its origin counts.
  const auto again = davit::http::Url::Parse(url->ToString());
  Check(again.ok() && again->Origin() == url->Origin());
}

void Config(const std::string& text) {
  const auto platform = davit::rafs::PlatformOf(text);
  const auto config = davit::rafs::RewriteConfig(text, {"sha256:a", "sha256:b"});
  if (!config.ok()) return;
  const auto again = davit::rafs::RewriteConfig(*config, {"sha256:a", "sha256:b"});
  Check(again.ok());
  if (platform.ok()) Check(davit::rafs::PlatformOf(*config).ok());
}

void Challenges(std::string_view text) {
  static const davit::http::Url kRegistry{"https", "registry.example", 443, "/v2"};
  for (const auto& challenge : davit::registry::ParseChallenges(text)) {
    const auto realm = challenge.params.find("realm");
    if (realm != challenge.params.end())
      static_cast<void>(davit::registry::CheckRealm(kRegistry, realm->second));
  }
}

/// What parses prints to the same value again.
void Name(std::string_view text) {
  using davit::registry::Reference;
  const auto one = Reference::Parse(text);
  if (!one.ok()) return;
  const auto again = Reference::Parse(one->ToString());
  Check(again.ok() && *again == *one);
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  davit::testing::FuzzInput input(data, size);
  switch (input.Byte()) {
    case 't':
      Token(input.Rest());
      break;
    case 'e':
      ErrorBody(input.Rest());
      break;
    case 'g':
      static_cast<void>(davit::registry::ParseTags(input.Rest()));
      break;
    case 'r':
      Referrers(input.Rest());
      break;
    case 'l':
      Link(input.Rest());
      break;
    case 'w':
      Challenges(input.Rest());
      break;
    case 'n':
      Name(input.Rest());
      break;
    case 'h':
      static_cast<void>(davit::registry::ParseHelperOutput("docker-credential-x", input.Rest()));
      break;
    default:
      Config(std::string(input.Rest()));
  }
  return 0;
}
