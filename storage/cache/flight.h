#pragma once
// One range request on its way from the planner to the decoder.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/context.h"
#include "common/base/log.h"
#include "common/base/sync.h"
#include "storage/blob/blob.h"

namespace davit::storage {

class BlobCore;

/// The units [first, last) of one blob. Members below the line are guarded by the blob's mutex.
struct Flight : std::enable_shared_from_this<Flight> {
  std::shared_ptr<BlobCore> blob;
  std::shared_ptr<BlobSource> source;  // of who asked; none for background work
  Cause cause = Cause::kDemand;
  std::uint32_t first = 0;
  std::uint32_t last = 0;
  std::vector<bool> claimed;           // which of them this flight brings; the rest fills gaps
  std::string owner;                   // the image that it is for
  std::vector<log::Field> log_fields;  // of who asked, or the images whose background work it is
  std::string avoid_endpoint;          // it delivered a damaged unit: this flight is the second try
  bool repair = false;
  std::shared_ptr<Flight> repaired;  // the first try; who waits for it hears how this one ends
  std::optional<TimePoint> fill_asked_at;  // of a fill
  std::uint32_t lessons = 0;               // of the blob's map, when this was planned
  bool background_slot = false;            // counts in the blob's background work

  std::stop_source hurry;    // somebody waits
  std::stop_source at_once;  // a fill that does not wait until readers are quiet
  std::stop_source stop;     // nobody wants it any more
  // -----
  CondVar changed;  // a unit came or failed
  std::map<std::uint32_t, Error> failed;
  int waiters = 0;
  bool started = false;    // its transfer has begun: what it claims is on its way
  bool abandoned = false;  // a reader took its units over before it started
};
using FlightPtr = std::shared_ptr<Flight>;

}  // namespace davit::storage
