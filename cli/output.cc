#include "cli/output.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <ostream>

namespace davit::cli {
namespace {

// For errors of layers that cannot know what the user was about.
std::string_view NextStep(const Error& error) {
  switch (error.sys_errno()) {
    case ENOENT:
    case ENOTDIR:
      return "check the path: it must exist";
    case EISDIR:
      return "name a file, not a directory";
    case EACCES:
    case EPERM:
      return "check the permissions, or run it as root";
    case ENOSPC:
    case EDQUOT:
      return "free some space, or name another place";
    case EROFS:
      return "name a place that can be written to";
    default:
      break;
  }
  switch (error.code()) {
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
      return "check the address and the network, then try again; --log-level debug shows each step";
    case Code::kNotFound:
      return "check the name for typing errors";
    case Code::kPermissionDenied:
    case Code::kUnauthenticated:
      return "check the credentials (--auth-file, docker login)";
    case Code::kDataLoss:
      return "the data is damaged: fetch or build it anew";
    case Code::kInvalidArgument:
      return "see --help";
    default:
      return "--log-level debug shows each step";
  }
}

}  // namespace

void AddOutputFormat(CLI::App& command, std::string& format) {
  command.add_option("--output", format, "Result as text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
}

std::string HumanBytes(std::uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

void PrintError(Io& io, std::string_view program, const Error& error) {
  const std::string_view hint = error.hint().empty() ? NextStep(error) : error.hint();
  // In one piece: standard error has no buffer.
  io.err << fmt::format("{}: {}\n  {}\n", program, Printable(error.message()), Printable(hint));
}

}  // namespace davit::cli
