// Prefetch and fill: large requests, one after the other, behind everything that readers want.

#include <fmt/format.h>

#include <algorithm>

#include "common/base/log.h"
#include "storage/cache/blob_core.h"

namespace davit::storage {
namespace {
// Two in flight keep the link busy while one ends; more would only stand in readers' way.
constexpr int kInFlight = 2;
// Recorded accesses lie scattered; a little is fetched beyond each.
constexpr std::uint64_t kAccessRequest = 1U << 20;
constexpr std::chrono::seconds kFirstRetry{15};
constexpr std::chrono::seconds kLastRetry{600};
// What an image that was just unmounted leaves behind can be evicted a moment later.
constexpr std::chrono::seconds kRoomPatience{5};
}  // namespace

void BlobCore::Prefetch(const std::shared_ptr<BlobUser>& user, const std::vector<ByteRange>& ranges,
                        Cause cause) {
  {
    MutexLock lock(mutex_);
    WantAdmitted(user);
    for (const ByteRange& range : ranges) background_.ranges.emplace_back(range, cause);
    background_.load_at_once.request_stop();
  }
  env_.fetch.Wake();
  Pump();
}

void BlobCore::Fill(const std::shared_ptr<BlobUser>& user, FillEnd on_end, FillStart start) {
  {
    MutexLock lock(mutex_);
    WantAdmitted(user);
    background_.skipped.clear();
    if (!background_.fill_asked_at) background_.fill_asked_at = std::chrono::steady_clock::now();
    if (on_end) background_.on_end.push_back({std::move(on_end), start, user, {}});
    if (start == FillStart::kAtOnce) {
      background_.at_once = true;
      background_.load_at_once.request_stop();
      for (const auto& [unit, flight] : flights_) {
        if (flight->fill_asked_at) flight->at_once.request_stop();
      }
    }
  }
  if (start == FillStart::kAtOnce) env_.fetch.Wake();
  Pump();
  // It may be complete already.
  env_.wake_maintenance();
}

void BlobCore::StopBackground() {
  std::vector<FlightPtr> flights;
  {
    MutexLock lock(mutex_);
    background_.ranges.clear();
    background_.fill_asked_at.reset();
    background_.filled = background_.at_once = false;
    background_.on_end.clear();
    background_.unadmitted.clear();
    background_.short_of = 0;
    background_.said_short = false;
    background_.failure.reset();
    background_.stop.request_stop();
    background_.stop = std::stop_source();
    background_.load_at_once = std::stop_source();
    for (const auto& [unit, flight] : flights_) {
      if (flight->cause == Cause::kDemand || flight->waiters > 0) continue;
      if (flights.empty() || flights.back() != flight) flights.push_back(flight);
    }
  }
  for (const FlightPtr& flight : flights) flight->stop.request_stop();
}

FlightPtr BlobCore::FromUnit(LoadedMap& loaded, std::uint32_t first, std::uint32_t last,
                             Cause cause) {
  for (std::uint32_t unit = first; unit < last; ++unit) {
    if (!Absent(loaded, unit) || background_.skipped.contains(unit)) continue;
    FlightPtr flight = Claim(loaded, cause, unit, last, UINT64_MAX, env_.options.max_request_bytes,
                             env_.options.merge_gap_bytes / 4);
    flight->background_slot = true;
    return flight;
  }
  return nullptr;
}

FlightPtr BlobCore::NextOfRanges(LoadedMap& loaded) {
  while (!background_.ranges.empty()) {
    const auto [range, cause] = background_.ranges.front();
    const ChunkSpan span = loaded.Span(range);
    for (std::uint32_t chunk = span.first; chunk < span.last; ++chunk) {
      if (loaded.ready.Test(chunk)) continue;
      const std::uint32_t unit = loaded.map->ChunkAt(chunk).unit;
      const std::uint32_t last = loaded.map->ChunkAt(span.last - 1).unit;
      if (FlightPtr flight = FromUnit(loaded, unit, std::max(last, unit) + 1, cause)) return flight;
    }
    background_.ranges.pop_front();
  }
  return nullptr;
}

FlightPtr BlobCore::NextOfFill(LoadedMap& loaded) {
  if (!background_.fill_asked_at) return nullptr;
  const BlobMap& map = *loaded.map;
  // What was read last time will be read again, before the rest.
  for (; background_.next_access < access_order_.size(); ++background_.next_access) {
    const std::uint32_t unit = map.ChunkAt(access_order_[background_.next_access]).unit;
    if (!Absent(loaded, unit) || background_.skipped.contains(unit)) continue;
    FlightPtr flight = Claim(loaded, Cause::kBackfill, unit, map.unit_count(), UINT64_MAX,
                             std::min(kAccessRequest, env_.options.max_request_bytes),
                             env_.options.merge_gap_bytes / 4);
    flight->background_slot = true;
    return OfFill(std::move(flight));
  }
  // Ahead of the last reader: what it wants next is then on its way already.
  if (read_ahead_.last_position() != background_.seen_position) {
    background_.seen_position = read_ahead_.last_position();
    background_.cursor = loaded.FindUnit(background_.seen_position);
  }
  FlightPtr flight = FromUnit(loaded, background_.cursor, map.unit_count(), Cause::kBackfill);
  if (!flight) flight = FromUnit(loaded, 0, background_.cursor, Cause::kBackfill);
  if (flight) {
    background_.cursor = flight->last;
    return OfFill(std::move(flight));
  }
  return nullptr;
}

FlightPtr BlobCore::OfFill(FlightPtr flight) {
  flight->fill_asked_at = background_.fill_asked_at;
  if (background_.at_once) flight->at_once.request_stop();
  return flight;
}

FlightPtr BlobCore::NextBackground(LoadedMap& loaded) {
  if (FlightPtr flight = NextOfRanges(loaded)) return flight;
  return NextOfFill(loaded);
}

void BlobCore::ScheduleRetry() {
  background_.retry_delay =
      std::clamp<Duration>(background_.retry_delay * 2, kFirstRetry, kLastRetry);
  background_.retry_at = env_.clock.Now() + background_.retry_delay;
}

void BlobCore::WantAdmitted(const std::shared_ptr<BlobUser>& user) {
  if (user->admitted.load()) return;
  auto& list = background_.unadmitted;
  if (std::find(list.begin(), list.end(), user) == list.end()) list.push_back(user);
}

void BlobCore::OnLoadedInBackground(const std::shared_ptr<BlobUser>& user, const Status& status) {
  const bool cancelled = !status.ok() && status.error().code() == Code::kCancelled;
  {
    MutexLock lock(mutex_);
    background_.loading = false;
    // Asking again helps unless the table itself is the trouble.
    const bool refused = !status.ok() && status.error().code() == Code::kFailedPrecondition;
    if (status.ok() || refused) std::erase(background_.unadmitted, user);
    if (refused) {
      for (Waiting& waiting : background_.on_end) {
        if (waiting.user == user) waiting.refused = status.error();
      }
    }
    if (status.ok()) background_.failure.reset();
    if (!status.ok() && !cancelled) {
      background_.failure = status.error();
      if (loaded_.load() == nullptr) ScheduleRetry();
      background_.admit_at = env_.clock.Now() + kFirstRetry;
    }
  }
  if (!status.ok() && !cancelled) {
    log::Warn("cannot fill a blob yet", {{"blob", id_.value}, {"error", status.error()}});
  }
  if (status.ok()) Pump();
  env_.wake_maintenance();  // somebody may wait for the outcome
}

void BlobCore::LoadInBackground() {
  if (background_.loading) return;
  background_.loading = true;
  // Like the fill's content, what only a fill needs keeps out of the way of the first readers.
  const bool listed = !background_.ranges.empty();
  const Cause cause = listed ? Cause::kPrefetch : Cause::kBackfill;
  const Context ctx{.cause = cause, .stop = background_.stop.get_token()};
  const auto& user =
      background_.unadmitted.empty() ? users_.front() : background_.unadmitted.front();
  env_.fetch.Submit(FetchPool::Job{.cause = cause,
                                   .host = user->source->Host(),
                                   .owner = user->image,
                                   .run =
                                       [self = shared_from_this(), user, ctx] {
                                         const log::Scope scope({{"image", user->image}});
                                         const auto loaded = self->Load(ctx, *user);
                                         self->OnLoadedInBackground(
                                             user, loaded.ok() ? Status() : Status(loaded.error()));
                                       },
                                   .fill_asked_at = background_.fill_asked_at,
                                   .at_once = background_.load_at_once.get_token()});
}

std::int64_t BlobCore::UnitDiskSize(const LoadedMap& loaded, std::uint32_t unit) {
  std::uint64_t bytes = 0;
  const auto [first, last] = loaded.map->ChunksOfUnit(unit);
  for (std::uint32_t chunk = first; chunk < last; ++chunk)
    bytes += DiskSize(loaded.map->ChunkAt(chunk).size);
  return static_cast<std::int64_t>(bytes);
}

void BlobCore::ReturnRoom(const Flight& flight, std::uint32_t unit) const {
  if (flight.background_slot) env_.background_bytes.fetch_sub(UnitDiskSize(*loaded_.load(), unit));
}

// False: there is no room, and the flight's units are free again.
bool BlobCore::ReserveRoom(const LoadedMap& loaded, Flight& flight) {
  std::int64_t bytes = 0;
  for (std::uint32_t i = 0; i < flight.claimed.size(); ++i) {
    if (flight.claimed[i]) bytes += UnitDiskSize(loaded, flight.first + i);
  }
  if (env_.RoomForBackground(bytes)) {
    env_.background_bytes.fetch_add(bytes);
    background_.said_short = false;
    return true;
  }
  background_.short_of = std::max<std::int64_t>(bytes, 1);
  background_.short_since = env_.clock.Now();
  std::erase_if(flights_, [&](const auto& entry) { return entry.second.get() == &flight; });
  return false;
}

// By value: the caller's pointer may be the one in flights_, which is erased here.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
bool BlobCore::Abandon(FlightPtr flight) {
  if (!flight->fill_asked_at || flight->started || flight->hurry.stop_requested()) return false;
  for (std::uint32_t i = 0; i < flight->claimed.size(); ++i) {
    if (!flight->claimed[i]) continue;
    flights_.erase(flight->first + i);
    ReturnRoom(*flight, flight->first + i);
  }
  flight->abandoned = true;
  if (flight->waiters > 0) flight->changed.NotifyAll();
  return true;
}

bool BlobCore::Begin(Flight& flight) {
  const MutexLock lock(mutex_);
  flight.started = true;
  return !flight.abandoned;
}

void BlobCore::Pump() {
  std::vector<FlightPtr> started;
  bool no_room = false;
  {
    MutexLock lock(mutex_);
    const TimePoint now = env_.clock.Now();
    LoadedMap* loaded = loaded_.load();
    // Those who are known already do not wait for one who cannot be compared yet.
    if (loaded != nullptr && !background_.unadmitted.empty() && now >= background_.admit_at) {
      LoadInBackground();
    }
    if (background_.ranges.empty() && !background_.fill_asked_at) return;
    if (background_.short_of > 0 || now < background_.retry_at) return;
    if (loaded == nullptr) {
      LoadInBackground();
      return;
    }
    while (background_.running < kInFlight) {
      FlightPtr flight = NextBackground(*loaded);
      if (!flight) break;
      no_room = !ReserveRoom(*loaded, *flight);
      if (no_room) break;
      ++background_.running;
      started.push_back(std::move(flight));
    }
    // All that can be had is here; units that arrived damaged get another chance later.
    if (!no_room && started.empty() && background_.running == 0 && !background_.skipped.empty() &&
        env_.clock.Now() >= background_.retry_at) {
      background_.skipped.clear();
      ScheduleRetry();
    }
  }
  for (const FlightPtr& flight : started) Launch(flight);
  if (no_room) env_.wake_maintenance();  // it can evict
}

std::uint64_t BlobCore::short_of() const {
  MutexLock lock(mutex_);
  return static_cast<std::uint64_t>(background_.short_of);
}

void BlobCore::TryRoom() {
  {
    MutexLock lock(mutex_);
    if (background_.short_of == 0) return;
    if (env_.RoomForBackground(background_.short_of)) {
      background_.short_of = 0;
    } else if (env_.clock.Now() - background_.short_since < kRoomPatience ||
               std::exchange(background_.said_short, true)) {
      return;
    }
  }
  if (short_of() == 0) return Pump();
  log::Warn("no room to fetch the rest of a blob: it is fetched as it is read",
            {{"blob", id_.value}, {"image", ImageNames()}, {"error", NoRoom()}});
}

Error BlobCore::NoRoom() const {
  const BlobProgress now = progress();
  const std::string limit =
      env_.disk_is_short.load()
          ? "the file system has too little free space"
          : fmt::format(
                "the cache holds {} bytes, all of images in use, and with its budget of {} "
                "bytes it fetches ahead up to {}",
                env_.bytes_on_disk.load(), env_.options.budget_bytes,
                static_cast<std::uint64_t>(static_cast<double>(env_.options.budget_bytes) *
                                           env_.options.low_watermark));
  return Error(Code::kResourceExhausted,
               fmt::format("blob {}: no room for {} of {} bytes: {}", id_.value,
                           now.bytes_total - now.bytes_ready, now.bytes_total, limit))
      .WithHint(env_.disk_is_short.load()
                    ? "free some of it, or lower cache.reserve_free_bytes"
                    : "raise cache.budget_bytes, or unmount an image; nothing that is in use is "
                      "evicted to fetch ahead");
}

std::optional<Error> BlobCore::BackgroundError() const {
  const bool complete = progress().complete;
  const MutexLock lock(mutex_);
  if (complete && background_.unadmitted.empty()) return std::nullopt;
  if (background_.short_of > 0 && background_.said_short) return NoRoom();
  return background_.failure;
}

void BlobCore::OnTransferEnd(Flight& flight, const Status& status) {
  if (!flight.background_slot) return;
  {
    MutexLock lock(mutex_);
    --background_.running;
    if (!status.ok() && status.error().code() != Code::kCancelled) {
      background_.failure = status.error();
      ScheduleRetry();
    }
  }
  if (!status.ok() && status.error().code() != Code::kCancelled) {
    log::Warn("background fetch failed; it is tried again later",
              {{"blob", id_.value}, {"cause", CauseName(flight.cause)}, {"error", status.error()}});
  }
  Pump();
}

std::vector<std::function<void()>> BlobCore::TakeEnds() {
  std::vector<std::function<void()>> out;
  MutexLock lock(mutex_);
  const bool complete = progress().complete && dirty_.empty();
  if (complete) {
    if (background_.fill_asked_at) background_.filled = true;
    background_.fill_asked_at.reset();
    background_.at_once = false;
  }
  const bool no_room = background_.short_of > 0 && background_.said_short;
  std::erase_if(background_.on_end, [&](Waiting& waiting) {
    Status status;
    if (waiting.refused) {
      status = *waiting.refused;
    } else if (!waiting.user->admitted.load()) {
      return false;  // it may want what nobody else knows
    } else if (!complete) {
      if (!no_room || waiting.start != FillStart::kAtOnce) return false;
      status = NoRoom();
    }
    out.emplace_back([end = std::move(waiting.end), status] { end(status); });
    return true;
  });
  return out;
}

}  // namespace davit::storage
