#pragma once
// Progress of long commands on their error stream: redrawn bars on a terminal, plain lines in a
// log.

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "rafs/convert/convert.h"

namespace davit::cli {

/// One bar for each thing under way. Without a terminal a bar is a plain line every ten seconds.
/// Not thread-safe.
class Progress {
 public:
  Progress(Io& io, bool quiet) : io_(io), quiet_(quiet) {}
  ~Progress() { Finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `total` 0: nobody knows how much it will be.
  void Update(std::string_view name, std::uint64_t done, std::uint64_t total);
  void Remove(std::string_view name);
  /// A line that stays, above the bars.
  void Line(std::string_view text);
  /// Removes all bars; may be called again.
  void Finish();

 private:
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Bar {
    std::string name;
    std::uint64_t done = 0, total = 0;
    TimePoint start;
  };

  void Draw();
  std::string Erased();
  std::string Render(const Bar& bar, std::size_t columns, TimePoint now) const;

  Io& io_;
  bool quiet_;
  std::vector<Bar> bars_;
  std::size_t drawn_ = 0;  // lines of bars on the screen
  TimePoint last_draw_{};
  TimePoint last_line_ = std::chrono::steady_clock::now();
};

/// What a conversion or copy says, as bars and lines.
class ConvertProgress {
 public:
  explicit ConvertProgress(Progress& progress) : progress_(progress) {}
  void operator()(const rafs::ConvertEvent& event);

 private:
  Progress& progress_;
};

}  // namespace davit::cli
