#pragma once
// Progress of a conversion: one live line per layer on a terminal, plain lines in a log.

#include <chrono>
#include <map>
#include <string>

#include "cli/command.h"
#include "rafs/convert/convert.h"

namespace davit::cli {

/// "1.5 GiB"; for people.
std::string HumanBytes(std::uint64_t bytes);

/// Not thread-safe: ConvertListener calls come one at a time.
class ConvertProgress {
 public:
  ConvertProgress(Io& io, bool quiet) : io_(io), quiet_(quiet) {}
  void operator()(const rafs::ConvertEvent& event);
  /// Ends the live line.
  void Finish();

 private:
  void Line(const std::string& text);
  void Live(const std::string& text);

  Io& io_;
  bool quiet_;
  bool live_ = false;
  std::chrono::steady_clock::time_point last_draw_{};
};

}  // namespace davit::cli
