// Which ranges of a blob are on their way: planning, joining, waiting, publishing.

#include <fmt/format.h>

#include <algorithm>

#include "common/base/log.h"
#include "storage/cache/blob_core.h"

namespace davit::storage {
namespace {

// Bounds the memory of a flight when units are tiny.
constexpr std::uint32_t kMaxUnitsPerFlight = 8192;
constexpr int kMaxRounds = 16;
constexpr std::size_t kMaxSources = 8;

std::uint64_t End(const Unit& unit) { return unit.compressed_offset + unit.compressed_size; }

}  // namespace

void BlobCore::AddUser(const std::shared_ptr<BlobUser>& user) {
  MutexLock lock(mutex_);
  // Nobody uses it: the one that is there only stands for the last user.
  if (users_.size() == 1 && users_.front().use_count() == 1) users_.clear();
  users_.push_back(user);
}

void BlobCore::RemoveUser(const std::shared_ptr<BlobUser>& user) {
  MutexLock lock(mutex_);
  std::erase(background_.unadmitted, user);
  std::erase_if(background_.on_end, [&](const Waiting& waiting) { return waiting.user == user; });
  if (users_.size() > 1) std::erase(users_, user);
}

std::string BlobCore::ImageNames() const {
  constexpr std::size_t kMost = 4;  // a base layer may have hundreds of users
  std::set<std::string> names;
  {
    const MutexLock lock(mutex_);
    for (const auto& user : users_) {
      if (!user->image.empty()) names.insert(user->image);
    }
  }
  std::string out;
  std::size_t left = kMost;
  for (const std::string& name : names) {
    if (left-- == 0) return fmt::format("{} and {} more", out, names.size() - kMost);
    out += (out.empty() ? "" : " ") + name;
  }
  return out;
}

std::string BlobCore::FirstImage() const {
  const MutexLock lock(mutex_);
  return users_.empty() ? std::string() : users_.front()->image;
}

std::vector<std::shared_ptr<BlobSource>> BlobCore::SourcesFor(const Flight& flight) const {
  std::vector<std::shared_ptr<BlobSource>> sources;
  if (flight.source) sources.push_back(flight.source);
  MutexLock lock(mutex_);
  for (const auto& user : users_) {
    if (user->source != flight.source && sources.size() < kMaxSources)
      sources.push_back(user->source);
  }
  return sources;
}

bool BlobCore::Absent(const LoadedMap& loaded, std::uint32_t unit) const {
  return !flights_.contains(unit) && !loaded.UnitReady(unit);
}

FlightPtr BlobCore::Claim(LoadedMap& loaded, Cause cause, std::uint32_t first, std::uint32_t last,
                          std::uint64_t until, std::uint64_t max_bytes, std::uint64_t max_gap) {
  const BlobMap& map = *loaded.map;
  auto flight = std::make_shared<Flight>();
  flight->blob = shared_from_this();
  if (loaded.partial) flight->lessons = loaded.partial->lessons.load();
  flight->cause = cause;
  flight->first = first;
  flight->last = first;
  const std::uint64_t begin = map.UnitAt(first).compressed_offset;
  std::uint64_t end = begin;  // of what is claimed
  std::uint64_t reached = begin;
  last = std::min(last, first + kMaxUnitsPerFlight);
  for (std::uint32_t i = first; i < last; ++i) {
    const Unit unit = map.UnitAt(i);
    if (i != first) {
      if (unit.compressed_offset >= until || End(unit) - begin > max_bytes) break;
      // Units that share bytes cannot be cut out of one stream.
      if (unit.compressed_offset < reached || unit.compressed_offset - end > max_gap) break;
    }
    reached = End(unit);
    if (!Absent(loaded, i)) continue;
    flight->claimed.resize(i - first + 1);
    flight->claimed[i - first] = true;
    flights_[i] = flight;
    flight->last = i + 1;
    end = End(unit);
  }
  return flight;
}

std::vector<FlightPtr> BlobCore::Plan(const Context& ctx, LoadedMap& loaded, ChunkSpan span,
                                      std::vector<Wanted>& wanted) {
  const BlobMap& map = *loaded.map;
  std::vector<std::uint32_t> units;
  for (std::uint32_t chunk = span.first; chunk < span.last; ++chunk) {
    if (!loaded.ready.Test(chunk)) units.push_back(map.ChunkAt(chunk).unit);
  }
  std::sort(units.begin(), units.end());
  units.erase(std::unique(units.begin(), units.end()), units.end());
  std::vector<FlightPtr> started;
  if (units.empty()) return started;

  const BlobCache::Options& options = env_.options;
  ReadAhead::Advice advice;
  advice.fetch_until = End(map.UnitAt(units.back()));
  if (ctx.cause == Cause::kDemand) {
    advice = read_ahead_.OnRead(map.UnitAt(units.front()).compressed_offset, advice.fetch_until);
  }
  for (std::size_t i = 0; i < units.size(); ++i) {
    const std::uint32_t unit = units[i];
    auto found = flights_.find(unit);
    if (found != flights_.end() && ctx.cause == Cause::kDemand && Abandon(found->second)) {
      found = flights_.end();
    }
    const bool own = found == flights_.end();
    if (own) {
      // Up to the last wanted unit, and past it as far as reading ahead is worth it.
      const std::uint64_t until = std::max(advice.fetch_until, End(map.UnitAt(units.back())));
      started.push_back(Claim(loaded, ctx.cause, unit, map.unit_count(), until,
                              options.max_request_bytes, options.merge_gap_bytes));
      found = flights_.find(unit);
    } else if (ctx.cause == Cause::kDemand) {
      Hurry(found->second);
    }
    wanted.push_back(
        Wanted{unit, found->second,
               std::find(started.begin(), started.end(), found->second) != started.end()});
  }
  if (advice.sequential) ClaimReadAhead(loaded, advice, started);
  return started;
}

void BlobCore::ClaimReadAhead(LoadedMap& loaded, const ReadAhead::Advice& advice,
                              std::vector<FlightPtr>& started) {
  const BlobMap& map = *loaded.map;
  for (std::uint32_t unit = loaded.FindUnit(advice.asked_until); unit < map.unit_count();) {
    if (map.UnitAt(unit).compressed_offset >= advice.fetch_until) break;
    if (!Absent(loaded, unit)) {
      ++unit;
      continue;
    }
    const FlightPtr flight =
        Claim(loaded, Cause::kReadAhead, unit, map.unit_count(), advice.fetch_until,
              env_.options.max_request_bytes, env_.options.merge_gap_bytes / 4);
    started.push_back(flight);
    unit = flight->last;
  }
}

void BlobCore::ReadAheadOnHit(const BlobUser& user, LoadedMap& loaded, ChunkSpan span) {
  if (ready_chunks_.load(std::memory_order_relaxed) == loaded.wanted_chunks()) return;
  const Unit first = loaded.map->UnitAt(loaded.map->ChunkAt(span.first).unit);
  const Unit last = loaded.map->UnitAt(loaded.map->ChunkAt(span.last - 1).unit);
  if (End(last) <= first.compressed_offset) return;  // not in the order of the blob
  std::vector<FlightPtr> started;
  {
    MutexLock lock(mutex_);
    const ReadAhead::Advice advice = read_ahead_.OnRead(first.compressed_offset, End(last));
    if (advice.sequential) ClaimReadAhead(loaded, advice, started);
  }
  for (const FlightPtr& flight : started) {
    flight->source = user.source;
    flight->owner = user.image;
    Launch(flight);
  }
}

void BlobCore::Hurry(const FlightPtr& flight) {
  if (flight->cause == Cause::kDemand || !flight->hurry.request_stop()) return;
  env_.fetch.Poke();
}

void BlobCore::Launch(const FlightPtr& flight) {
  if (flight->background_slot) {
    flight->owner = FirstImage();
    flight->log_fields = {{"image", ImageNames()}};
  } else {
    flight->log_fields = log::ScopeFields();
  }
  env_.fetch.Submit(FetchPool::Job{.cause = flight->cause,
                                   .host = SourcesFor(*flight).front()->Host(),
                                   .owner = flight->owner,
                                   .hurry = flight->hurry.get_token(),
                                   .run = [flight] { RunFlight(flight); },
                                   .fill_asked_at = flight->fill_asked_at,
                                   .at_once = flight->at_once.get_token()});
}

Status BlobCore::EnsureStep(const Context& ctx, const BlobUser& user, LoadedMap& loaded,
                            ChunkSpan span) {
  for (int round = 0; round < kMaxRounds; ++round) {
    DAVIT_TRY(ctx.Check("read blob " + id_.value));
    std::vector<Wanted> wanted;
    std::vector<FlightPtr> started;
    {
      MutexLock lock(mutex_);
      started = Plan(ctx, loaded, span, wanted);
    }
    if (wanted.empty()) return {};
    for (const FlightPtr& flight : started) {
      flight->source = user.source;
      flight->owner = user.image;
      Launch(flight);
    }
    bool all = true;
    for (const Wanted& one : wanted) {
      DAVIT_TRY_ASSIGN(const bool ready, WaitFor(ctx, loaded, one));
      all = all && ready;
    }
    if (all) return {};
  }
  return Error(Code::kResourceExhausted,
               fmt::format("blob {}: what is fetched is evicted before it can be read", id_.value))
      .WithHint("give the cache a larger budget");
}

// True: the unit is there. False: it is neither there nor on its way; plan anew.
Result<bool> BlobCore::WaitFor(const Context& ctx, LoadedMap& loaded, const Wanted& wanted) {
  FlightPtr flight = wanted.flight;
  FlightPtr to_stop;
  {
    MutexLock lock(mutex_);
    while (true) {
      if (loaded.UnitReady(wanted.unit)) return true;
      const auto current = flights_.find(wanted.unit);
      if (current == flights_.end()) {
        const auto failed = flight->failed.find(wanted.unit);
        if (failed == flight->failed.end()) return false;
        // The second try of a damaged unit is the own request's, too.
        const bool own = wanted.own && (flight == wanted.flight || flight->repair);
        if (failed->second.code() == Code::kCancelled) return false;
        // Somebody else's request: it was as patient as they were, and may have failed before this
        // read began. Damage has been looked at twice, though.
        if (!own && failed->second.code() != Code::kDataLoss) return false;
        return failed->second;
      }
      if (current->second != flight) {
        flight = current->second;
        if (ctx.cause == Cause::kDemand) Hurry(flight);
      }
      ++flight->waiters;
      const bool woken = flight->changed.Wait(mutex_, ctx);
      --flight->waiters;
      if (!woken && !ctx.Check("").ok()) break;
    }
    // The last reader of a demand flight takes it along; others find it cancelled and ask anew.
    if (flight->waiters == 0 && flight->cause == Cause::kDemand) to_stop = flight;
  }
  if (to_stop) to_stop->stop.request_stop();
  DAVIT_TRY(ctx.Check("wait for blob " + id_.value));
  return false;
}

// Chunks are noted as not yet durable before they can be seen as ready: a flush that begins after
// somebody has seen them takes them along.
void BlobCore::Publish(Flight& flight, std::span<const std::uint32_t> units) {
  LoadedMap& loaded = *loaded_.load();
  const std::uint32_t now = env_.tick.load(std::memory_order_relaxed);
  std::uint64_t bytes = 0;
  std::uint64_t disk_bytes = 0;
  std::uint32_t fresh = 0;
  bool complete = false;
  {
    MutexLock lock(mutex_);
    for (const std::uint32_t unit : units) {
      const auto [first, last] = loaded.map->ChunksOfUnit(unit);
      for (std::uint32_t chunk = first; chunk < last; ++chunk) {
        if (loaded.ready.Test(chunk) || loaded.CameTooSoon(flight, chunk)) continue;
        // Before the bit: an evictor that sees the bit sees a group that was just used.
        loaded.stamps[chunk >> kGroupShift].store(now, std::memory_order_relaxed);
        dirty_.push_back(chunk);
        loaded.ready.Set(chunk);
        ++fresh;
        const std::uint32_t size = loaded.map->ChunkAt(chunk).size;
        bytes += size;
        disk_bytes += DiskSize(size);
      }
      const auto found = flights_.find(unit);
      if (found != flights_.end() && found->second.get() == &flight) flights_.erase(found);
      ReturnRoom(flight, unit);
    }
    // Only what has arrived is a success: what is damaged or cannot be written arrives, too.
    if (flight.background_slot && fresh != 0) background_.retry_delay = {};
    // What is damaged stays so, whatever else arrives, until all is here.
    const bool damaged = background_.failure && background_.failure->code() == Code::kDataLoss;
    if (fresh != 0 && !damaged) background_.failure.reset();
    ready_bytes_.fetch_add(bytes);
    complete = fresh != 0 && ready_chunks_.fetch_add(fresh) + fresh == loaded.wanted_chunks();
    Account(static_cast<std::int64_t>(disk_bytes));
    if (flight.waiters > 0) flight.changed.NotifyAll();
  }
  if (complete || env_.OverBudget()) env_.wake_maintenance();
}

void BlobCore::Fail(Flight& flight, std::span<const std::uint32_t> units, const Error& error) {
  MutexLock lock(mutex_);
  // The disk refuses it: fetching it again at once would only load the registry.
  if (flight.background_slot && error.code() != Code::kDataLoss &&
      error.code() != Code::kCancelled && env_.clock.Now() >= background_.retry_at) {
    ScheduleRetry();
  }
  const bool background =
      flight.background_slot || (flight.repaired && flight.repaired->background_slot);
  if (background && error.code() != Code::kCancelled) background_.failure = error;
  for (const std::uint32_t unit : units) {
    const auto found = flights_.find(unit);
    if (found == flights_.end() || found->second.get() != &flight) continue;
    flights_.erase(found);
    ReturnRoom(flight, unit);
    flight.failed.emplace(unit, error);
    // It may fail before those who wait for the first try have seen that there is a second one.
    if (flight.repaired) flight.repaired->failed.emplace(unit, error);
    if (error.code() == Code::kDataLoss) background_.skipped.insert(unit);
  }
  flight.changed.NotifyAll();
  if (flight.repaired) flight.repaired->changed.NotifyAll();
}

void BlobCore::OnDamaged(Flight& flight, std::uint32_t unit, const std::string& served_by,
                         const Error& error) {
  const LoadedMap& loaded = *loaded_.load();
  const auto [first, last] = loaded.map->ChunksOfUnit(unit);
  env_.counters.corrupt_chunks.fetch_add(last - first);
  const std::string from = served_by.empty() ? SourcesFor(flight).front()->Describe() : served_by;
  if (flight.repair) {
    log::Error("damaged twice, not delivered and not cached",
               {{"blob", id_.value}, {"chunk", first}, {"from", from}, {"error", error}});
    Fail(flight, std::span(&unit, 1),
         Error(Code::kDataLoss,
               fmt::format("blob {} chunk {} arrived damaged twice, last from {}: {}", id_.value,
                           first, from, error.message()))
             .WithHint("check the registry's storage; the chunk is fetched anew at the next read"));
    return;
  }
  log::Warn("a chunk arrived damaged; it is fetched once more",
            {{"blob", id_.value}, {"chunk", first}, {"from", from}, {"error", error}});
  ReturnRoom(flight, unit);
  auto repair = std::make_shared<Flight>();
  repair->blob = shared_from_this();
  repair->source = flight.source;
  repair->owner = flight.owner;
  repair->cause = flight.hurry.stop_requested() ? Cause::kDemand : flight.cause;
  repair->first = unit;
  repair->last = unit + 1;
  repair->claimed = {true};
  repair->avoid_endpoint = served_by;
  repair->repair = true;
  repair->repaired = flight.shared_from_this();
  {
    MutexLock lock(mutex_);
    if (loaded.partial) repair->lessons = loaded.partial->lessons.load();
    flights_[unit] = repair;
    if (flight.waiters > 0) flight.changed.NotifyAll();  // they move over to the new flight
  }
  Launch(repair);
}

void BlobCore::CancelAll() {
  StopBackground();
  std::vector<FlightPtr> flights;
  {
    MutexLock lock(mutex_);
    for (const auto& [unit, flight] : flights_) {
      if (flights.empty() || flights.back() != flight) flights.push_back(flight);
    }
  }
  for (const FlightPtr& flight : flights) flight->stop.request_stop();
}

bool BlobCore::idle() const {
  MutexLock lock(mutex_);
  return flights_.empty() && dirty_.empty() && background_.running == 0;
}

}  // namespace davit::storage
