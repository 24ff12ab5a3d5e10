#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <ostream>

#include "cli/output.h"

namespace davit::cli {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kLogEvery = std::chrono::seconds(10);
constexpr std::size_t kMaxBars = 8;

std::string ShortDigest(const std::string& digest) {
  const std::size_t colon = digest.find(':');
  return digest.substr(colon == std::string::npos ? 0 : colon + 1, 12);
}

/// Asked for anew each time: windows change their size.
std::size_t TerminalColumns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string BarOf(std::uint64_t done, std::uint64_t total, std::size_t width) {
  const double share = static_cast<double>(done) / static_cast<double>(total);
  const auto full = static_cast<std::size_t>(share * static_cast<double>(width));
  return "[" + std::string(full, '#') + std::string(width - full, '.') + "]";
}

}  // namespace

void Progress::Update(std::string_view name, std::uint64_t done, std::uint64_t total) {
  if (quiet_) return;
  const auto now = std::chrono::steady_clock::now();
  auto bar = std::ranges::find(bars_, name, &Bar::name);
  if (bar == bars_.end()) bar = bars_.insert(bar, Bar{std::string(name), 0, 0, now});
  bar->done = total == 0 ? done : std::min(done, total);
  bar->total = total;
  if (io_.terminal) {
    if (now - last_draw_ >= kRedraw) Draw();
    return;
  }
  if (now - last_line_ < kLogEvery) return;
  last_line_ = now;
  const std::string out = Printable(Render(*bar, 0, now)) + "\n";
  io_.err << out << std::flush;
}

void Progress::Remove(std::string_view name) {
  std::erase_if(bars_, [&](const Bar& bar) { return bar.name == name; });
}

void Progress::Line(std::string_view text) {
  if (quiet_) return;
  last_line_ = std::chrono::steady_clock::now();
  // In one piece: standard error has no buffer.
  const std::string out = Erased() + Printable(text) + "\n";
  io_.err << out << std::flush;
  if (io_.terminal && !bars_.empty()) Draw();
}

void Progress::Finish() {
  bars_.clear();
  if (drawn_ > 0) io_.err << Erased() << std::flush;
}

// The cursor rests at the end of the last bar.
std::string Progress::Erased() {
  if (drawn_ == 0) return {};
  const std::string up = drawn_ > 1 ? fmt::format("\x1b[{}A", drawn_ - 1) : std::string();
  drawn_ = 0;
  return "\r" + up + "\x1b[J";
}

void Progress::Draw() {
  last_draw_ = std::chrono::steady_clock::now();
  const std::size_t columns = TerminalColumns();
  std::string out = Erased();
  for (const Bar& bar : bars_) {
    if (drawn_ == kMaxBars) break;
    if (drawn_++ > 0) out += "\n";
    out += Render(bar, columns, last_draw_);
  }
  io_.err << out << std::flush;
}

/// One line; never as wide as the screen, or it would take two. `columns` 0: for a log.
std::string Progress::Render(const Bar& bar, std::size_t columns, TimePoint now) const {
  const double seconds = std::chrono::duration<double>(now - bar.start).count();
  std::string tail = HumanBytes(bar.done);
  if (bar.total > 0) {
    tail = fmt::format("{:3.0f}%  {} of {}",
                       100 * static_cast<double>(bar.done) / static_cast<double>(bar.total), tail,
                       HumanBytes(bar.total));
  }
  if (seconds > 0.5) {
    const double rate = static_cast<double>(bar.done) / seconds;
    tail += fmt::format("  {}/s", HumanBytes(static_cast<std::uint64_t>(rate)));
  }
  const std::string name = Printable(bar.name);
  if (columns == 0) return name + ": " + tail;
  constexpr std::size_t kNarrowest = 10, kWidest = 40, kAround = 5;
  const std::size_t taken = name.size() + tail.size() + kAround;
  std::string line = name + " " + tail;
  if (bar.total > 0 && taken + kNarrowest < columns) {
    const std::size_t width = std::min(columns - taken, kWidest);
    line = name + " " + BarOf(bar.done, bar.total, width) + " " + tail;
  }
  return line.substr(0, columns - 1);
}

void ConvertProgress::operator()(const rafs::ConvertEvent& event) {
  using Kind = rafs::ConvertEvent::Kind;
  const std::string digest = ShortDigest(event.text);
  const std::string layer = fmt::format("layer {}/{} {}", event.layer + 1, event.layers, digest);
  switch (event.kind) {
    case Kind::kLayerStart:
      progress_.Line(
          fmt::format("{}: {} to read ({})", layer, HumanBytes(event.total), event.platform));
      break;
    case Kind::kLayerProgress:
      progress_.Update(layer, event.bytes, event.total);
      break;
    case Kind::kLayerDone:
      progress_.Remove(layer);
      progress_.Line(fmt::format("{}: built, {} of content", layer, HumanBytes(event.content)));
      break;
    case Kind::kFetchProgress:
      progress_.Update("fetch " + digest, event.bytes, event.total);
      if (event.bytes >= event.total) progress_.Remove("fetch " + digest);
      break;
    case Kind::kPushStart:
      break;
    case Kind::kPushProgress:
      progress_.Update("push " + digest, event.bytes, event.total);
      break;
    case Kind::kPushDone:
      progress_.Remove("push " + digest);
      progress_.Line(fmt::format(
          "push {}: {}", digest,
          event.bytes > 0 ? HumanBytes(event.bytes) : std::string("was there already")));
      break;
    case Kind::kManifest:
      progress_.Line(fmt::format("manifest {} ({})", event.text, event.platform));
      break;
  }
}

}  // namespace davit::cli
