// A publish request of a pod's author: lines "v id", "t target path", "f mount flag",
// "a key=value" (attributes), "s key=value" (secrets). What was accepted survives the journal.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "csi/core/journal.h"
#include "csi/core/publish_args.h"
#include "csi/core/registry_auth.h"
#include "tests/support/fuzz/fuzz_input.h"

namespace {

using davit::csi::PublishRequest;

PublishRequest Parse(davit::testing::FuzzInput& input) {
  PublishRequest request;
  request.capability.present = true;
  const std::uint8_t bits = input.Byte();
  request.capability.mode = static_cast<davit::csi::AccessMode>(bits & 7U);
  request.read_only = (bits & 8U) != 0;
  for (auto line = input.Line(); !line.empty(); line = input.Line()) {
    const std::string_view rest = line.substr(std::min<std::size_t>(2, line.size()));
    const std::size_t equals = std::min(rest.find('='), rest.size());
    const std::string key(rest.substr(0, equals));
    const std::string value(rest.substr(std::min(equals + 1, rest.size())));
    switch (line.front()) {
      case 'v':
        request.volume_id = rest;
        break;
      case 't':
        request.target_path = rest;
        break;
      case 'f':
        request.capability.mount_flags.emplace_back(rest);
        break;
      case 's':
        request.secrets.insert_or_assign(key, davit::Secret(value));
        break;
      default:
        request.attributes.insert_or_assign(key, value);
    }
  }
  return request;
}

void CheckSecrets(const PublishRequest& request) {
  const auto auth = davit::csi::RegistryAuthOf(request.secrets);
  if (!auth.ok()) return;
  static_cast<void>(davit::csi::WithoutSecrets("user:password at registry", *auth));
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace davit::csi;
  davit::testing::FuzzInput input(data, size);
  const PublishRequest request = Parse(input);
  CheckSecrets(request);
  const auto target = NormalPath(request.target_path, "target_path");
  if (target.ok()) {
    const auto again = NormalPath(*target, "target_path");
    if (!again.ok() || *again != *target || target->find("//") != std::string::npos) std::abort();
  }
  const auto args = CheckPublish(request, (data != nullptr) && (size % 2 == 0));
  if (!args.ok() || !target.ok()) return 0;
  const std::string mount = MountIdOf(request.volume_id, args->spec);
  if (!davit::daemon::api::CheckMountId(mount).ok()) std::abort();
  JournalEntry entry;
  entry.volume_id = request.volume_id;
  entry.target = *target;
  entry.mount_id = mount;
  entry.args = *args;
  const std::string text = EntryToJson(entry);
  const auto back = EntryFromJson(text);
  // Bytes that are not UTF-8 are replaced in the file, which makes it longer and another; gRPC does
  // not let them in.
  if (text.find("\xef\xbf\xbd") != std::string::npos) return 0;
  if (!back.ok() || back->args != entry.args) std::abort();
  return 0;
}
