#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>

#include "storage/registry/oci.h"

namespace davit::oci {
namespace {

bool ValidPart(std::string_view part) {
  return !part.empty() && part.size() <= 64 && std::all_of(part.begin(), part.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

/// "v8" is the only variant arm64 has in practice; most images leave it out.
std::string_view NormalVariant(const Platform& platform) {
  if (platform.architecture == "arm64" && platform.variant == "v8") return {};
  return platform.variant;
}

struct Machine {
  std::string_view uname, architecture, variant;
};
constexpr std::array kMachines = {
    Machine{"x86_64", "amd64", ""},    Machine{"aarch64", "arm64", ""},
    Machine{"armv7l", "arm", "v7"},    Machine{"armv6l", "arm", "v6"},
    Machine{"i686", "386", ""},        Machine{"i386", "386", ""},
    Machine{"ppc64le", "ppc64le", ""}, Machine{"s390x", "s390x", ""},
    Machine{"riscv64", "riscv64", ""}, Machine{"loongarch64", "loong64", ""},
};

}  // namespace

Result<Platform> Platform::Parse(std::string_view text) {
  std::vector<std::string_view> parts;
  std::string_view rest = text;
  while (true) {
    const std::size_t slash = rest.find('/');
    parts.push_back(rest.substr(0, slash));
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
  }
  if (parts.size() < 2 || parts.size() > 3 || !std::all_of(parts.begin(), parts.end(), ValidPart)) {
    return Error(Code::kInvalidArgument, fmt::format("'{}' is not a platform", text))
        .WithHint("write os/architecture[/variant], for example linux/amd64 or linux/arm/v7");
  }
  Platform out;
  out.os = std::string(parts[0]);
  out.architecture = std::string(parts[1]);
  if (parts.size() == 3) out.variant = std::string(parts[2]);
  return out;
}

std::string Platform::ToString() const {
  std::string out = os + "/" + architecture;
  if (!variant.empty()) out += "/" + variant;
  return out;
}

Platform Platform::Host() {
  Platform out;
  out.os = "linux";
  utsname names{};
  if (uname(&names) != 0) return out;
  const std::string_view machine(names.machine);
  out.architecture = std::string(machine);
  for (const Machine& known : kMachines) {
    if (known.uname != machine) continue;
    out.architecture = std::string(known.architecture);
    out.variant = std::string(known.variant);
  }
  return out;
}

bool Platform::Matches(const Platform& wanted) const {
  if (os != wanted.os || architecture != wanted.architecture) return false;
  const std::string_view variant_wanted = NormalVariant(wanted);
  return variant_wanted.empty() || NormalVariant(*this) == variant_wanted;
}

}  // namespace davit::oci
