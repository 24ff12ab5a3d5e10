#pragma once
// One record of a tar entry's extended header, as it was written.

#include <string>
#include <string_view>

namespace davit::rafs {

/// `headers` begins with the first header of an entry and may end anywhere. The value of the last
/// record of that name in the entry's own extended header; empty when there is none, or when the
/// bytes are no such headers.
std::string PaxRecord(std::string_view headers, std::string_view name);

}  // namespace davit::rafs
