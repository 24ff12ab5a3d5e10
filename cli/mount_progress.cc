#include "cli/mount_progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <ostream>

#include "cli/output.h"

namespace davit::cli {
namespace {

// Nothing while nobody knows how large it is: it is not mounted yet.
std::string Local(const daemon::api::MountInfo& info) {
  if (info.bytes_total == 0) return "";
  const double part =
      100.0 * static_cast<double>(info.bytes_ready) / static_cast<double>(info.bytes_total);
  return fmt::format("{:5.1f} % local", info.complete ? 100.0 : std::min(part, 99.9));
}

// Without what would move the cursor: parts of it may come from a registry.
std::string Clean(const std::string& text) {
  std::string out;
  for (const char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  return out;
}

// As much of a text as fits, not ending inside a character.
std::string Cut(std::string out, std::size_t most) {
  if (out.size() <= most) return out;
  while (most > 0 && (static_cast<unsigned char>(out[most]) & 0xC0) == 0x80) --most;
  out.resize(most);
  return out;
}

}  // namespace

std::size_t ColumnsOf(const Io& io) {
  if (!io.terminal) return 0;
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

void MountProgress::Show(const daemon::api::MountInfo& info) {
  if (columns_ == 0) {
    if (info.error.empty() || info.error_code == said_) return;
    said_ = info.error_code;
    io_.err << "davit: " << info.id << " waits: " << Clean(info.error) << "\n" << std::flush;
    return;
  }
  std::string line = Local(info);
  if (!info.error.empty()) line += (line.empty() ? "" : ", ") + info.error;
  line = Cut(Clean(line), columns_ - 1);  // a full line would take two
  if (line == drawn_) return;
  io_.err << "\r\033[K" << line << std::flush;
  drawn_ = std::move(line);
}

void MountProgress::Clear() {
  if (!drawn_.empty()) io_.err << "\r\033[K" << std::flush;
  drawn_.clear();
}

Error NotReadyInTime(const daemon::api::MountInfo& info, daemon::api::Ready wanted,
                     const std::string& limit, const std::string& goes_on) {
  std::string text =
      fmt::format("{} is not {} after {}", info.source, daemon::api::ReadyName(wanted), limit);
  if (info.mounted_at_unix == 0) {
    text += ": it is not mounted yet";
  } else {
    text += fmt::format(": it is mounted with {} of {} here", HumanBytes(info.bytes_ready),
                        HumanBytes(info.bytes_total));
  }
  if (!info.error.empty()) text += "; " + info.error;
  return Error(Code::kDeadlineExceeded, std::move(text)).WithHint(goes_on);
}

}  // namespace davit::cli
