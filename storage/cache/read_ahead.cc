#include "storage/cache/read_ahead.h"

#include <algorithm>

namespace davit::storage {
namespace {
// Reads of one walk are not strictly ascending (readers in parallel, files read twice).
constexpr std::uint64_t kBackSlack = 512U << 10;
constexpr std::uint64_t kForwardSlack = 256U << 10;
}  // namespace

ReadAhead::Advice ReadAhead::OnRead(std::uint64_t begin, std::uint64_t end) {
  last_position_ = end;
  Stream* found = nullptr;
  Stream* oldest = &streams_[0];
  for (Stream& s : streams_) {
    if (s.used < oldest->used) oldest = &s;
    if (s.window == 0 || begin + kBackSlack < s.position) continue;
    if (begin > std::max(s.position, s.asked_until) + kForwardSlack) continue;
    if (found == nullptr || s.position > found->position) found = &s;
  }
  ++clock_;
  if (found == nullptr) {
    *oldest = Stream{.position = end,
                     .asked_until = std::max(end, begin + limits_.first_window),
                     .window = limits_.first_window,
                     .used = clock_};
    return Advice{.sequential = false, .fetch_until = oldest->asked_until, .asked_until = begin};
  }
  found->used = clock_;
  if (end <= found->position) {  // behind the reader: its neighbours may be wanted as well
    return Advice{.sequential = false,
                  .fetch_until = std::max(end, begin + limits_.first_window),
                  .asked_until = end};
  }
  found->position = end;
  const std::uint64_t asked = std::max(found->asked_until, end);
  // The next step is asked for when half of the last one has been read.
  if (end + found->window / 2 <= asked) {
    return Advice{.sequential = true, .fetch_until = asked, .asked_until = asked};
  }
  found->window = std::min(found->window * 2, limits_.max_window);
  found->asked_until = std::max(asked, end + found->window);
  return Advice{.sequential = true, .fetch_until = found->asked_until, .asked_until = asked};
}

}  // namespace davit::storage
