#include "cli/progress.h"

#include <fmt/format.h>

#include <array>
#include <ostream>

namespace davit::cli {
namespace {

std::string ShortDigest(const std::string& digest) {
  const std::size_t colon = digest.find(':');
  return digest.substr(colon == std::string::npos ? 0 : colon + 1, 12);
}

}  // namespace

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

void ConvertProgress::Line(const std::string& text) {
  if (live_) io_.err << "\r\x1b[K";
  live_ = false;
  io_.err << text << "\n" << std::flush;
}

void ConvertProgress::Live(const std::string& text) {
  const auto now = std::chrono::steady_clock::now();
  if (!io_.terminal || now - last_draw_ < std::chrono::milliseconds(100)) return;
  last_draw_ = now;
  io_.err << "\r\x1b[K" << text << std::flush;
  live_ = true;
}

void ConvertProgress::operator()(const rafs::ConvertEvent& event) {
  if (quiet_) return;
  using Kind = rafs::ConvertEvent::Kind;
  const std::string layer =
      fmt::format("layer {}/{} {}", event.layer + 1, event.layers, ShortDigest(event.text));
  switch (event.kind) {
    case Kind::kLayerStart:
      Line(fmt::format("{}: {} to read ({})", layer, HumanBytes(event.total), event.platform));
      break;
    case Kind::kLayerProgress:
      Live(fmt::format("{}: {} of content", layer, HumanBytes(event.bytes)));
      break;
    case Kind::kLayerDone:
      Line(fmt::format("{}: built, {} of content", layer, HumanBytes(event.bytes)));
      break;
    case Kind::kPushStart:
      break;
    case Kind::kPushProgress:
      Live(fmt::format("push {}: {} of {}", ShortDigest(event.text), HumanBytes(event.bytes),
                       HumanBytes(event.total)));
      break;
    case Kind::kPushDone:
      Line(fmt::format(
          "push {}: {}", ShortDigest(event.text),
          event.bytes > 0 ? HumanBytes(event.bytes) : std::string("was there already")));
      break;
    case Kind::kManifest:
      Line(fmt::format("manifest {} ({})", event.text, event.platform));
      break;
  }
}

void ConvertProgress::Finish() {
  if (live_) io_.err << "\r\x1b[K" << std::flush;
  live_ = false;
}

}  // namespace davit::cli
