// What a restart reads: the CSI driver's journal, davitd's mount records, the kernel's mount table.
// First byte: which of them.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "csi/core/journal.h"
#include "csi/core/mounter.h"
#include "daemon/core/mount_store.h"
#include "tests/support/fuzz/fuzz_input.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  davit::testing::FuzzInput input(data, size);
  switch (input.Byte()) {
    case 'j':
      if (const auto entry = davit::csi::EntryFromJson(input.Rest()); entry.ok()) {
        const std::string printed = davit::csi::EntryToJson(*entry);
        const auto again = davit::csi::EntryFromJson(printed);
        if (!again.ok() || davit::csi::EntryToJson(*again) != printed) std::abort();
      }
      break;
    case 'm':
      if (const auto record = davit::daemon::RecordFromJson(input.Rest()); record.ok()) {
        const std::string printed = davit::daemon::RecordToJson(*record);
        const auto again = davit::daemon::RecordFromJson(printed);
        if (!again.ok() || davit::daemon::RecordToJson(*again) != printed) std::abort();
      }
      break;
    default: {
      const auto mounts = davit::csi::ParseMountInfo(input.Rest());
      for (const auto& mount : mounts) {
        if (mount.path.empty() || davit::csi::FindMount(mounts, mount.path) == nullptr) {
          std::abort();
        }
      }
    }
  }
  return 0;
}
