#pragma once
// The shared state of one cached blob: what is here, what is on its way, what is durable.
//
// Locks: durable_mutex_ before mutex_; learn_mutex_ before mutex_; load_mutex_ alone. None is held
// while the network or a caller's code runs; durable_mutex_ is held over disk syncs and may be
// taken by background threads only.

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/base/sync.h"
#include "storage/cache/blob_cache.h"
#include "storage/cache/cache_env.h"
#include "storage/cache/flight.h"
#include "storage/cache/partial_map.h"
#include "storage/cache/read_ahead.h"
#include "storage/cache/read_epoch.h"
#include "storage/cache/ready_file.h"
#include "storage/cache/ready_map.h"

namespace davit::storage {

/// Chunks of one eviction group share a time of last use.
inline constexpr std::uint32_t kGroupShift = 4;
/// Readers do not stay: they wait for nothing but the disk.
inline constexpr std::chrono::seconds kReaderPatience{5};

/// What a chunk takes on disk: files grow by blocks.
inline std::uint64_t DiskSize(std::uint32_t bytes) { return AlignUp(bytes, 4096); }

/// Chunks [first, last).
struct ChunkSpan {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
};

/// What is known once the map has been read. Lives as long as its blob.
struct LoadedMap {
  explicit LoadedMap(std::shared_ptr<const BlobMap> m)
      : map(std::move(m)),
        ready(map->chunk_count()),
        touched(map->chunk_count()),
        stamps(new std::atomic<std::uint32_t>[(map->chunk_count() >> kGroupShift) + 1]()) {}

  /// The chunks that hold bytes of the range.
  ChunkSpan Span(ByteRange range) const;
  bool UnitReady(std::uint32_t unit) const {
    const auto [first, last] = map->ChunksOfUnit(unit);
    return ready.AllSet(first, last);
  }
  /// The first unit that begins at or after a compressed offset.
  std::uint32_t FindUnit(std::uint64_t compressed_offset) const;

  /// No image in use can verify these: nobody fetches them and nobody reads them. Their ready bits
  /// are set, for there is nothing to be done about them: so this is asked before ready is.
  bool IsUnknown(std::uint32_t chunk) const { return partial && partial->unknown.Test(chunk); }
  bool HasUnknown(ChunkSpan span) const;
  /// What is here, and is known to be right.
  bool Holds(std::uint32_t chunk) const { return !IsUnknown(chunk) && ready.Test(chunk); }
  /// Chunks that can be had.
  std::uint32_t wanted_chunks() const { return wanted.load(std::memory_order_relaxed); }
  /// A chunk that became known while the flight was on its way: it may have been left unverified.
  bool CameTooSoon(const Flight& flight, std::uint32_t chunk) const {
    return partial && flight.lessons != partial->lessons.load() && partial->learned.Test(chunk);
  }

  struct Partial {
    explicit Partial(const std::shared_ptr<const BlobMap>& base)
        : map(std::make_shared<PartialMap>(base)),
          unknown(base->chunk_count()),
          learned(base->chunk_count()) {}
    std::shared_ptr<PartialMap> map;
    ReadyMap unknown;
    ReadyMap learned;                       // no longer unknown: another image told
    std::atomic<std::uint32_t> lessons{0};  // changes under the blob's mutex
  };

  std::shared_ptr<const BlobMap> map;  // does not change once others see it
  std::unique_ptr<Partial> partial;    // of an image that does not know all chunks
  ReadyMap ready;
  ReadyMap touched;  // read by a demand read
  std::unique_ptr<std::atomic<std::uint32_t>[]> stamps;
  std::atomic<std::uint64_t> total_bytes{0};
  std::atomic<std::uint32_t> wanted{0};
  Digest identity;
};

/// One image's claim on a blob: where it fetches from, and what it thinks is in it.
struct BlobUser {
  std::shared_ptr<BlobSource> source;
  std::function<Result<std::shared_ptr<const BlobMap>>(const Context&)> load_map;
  std::string image;                  // for log lines
  std::atomic<bool> admitted{false};  // its map is the one that the content was verified by
};

class BlobCore : public std::enable_shared_from_this<BlobCore> {
 public:
  static Result<std::shared_ptr<BlobCore>> Open(CacheEnv& env, const BlobSpec& spec,
                                                const std::string& directory);
  BlobCore(CacheEnv& env, const BlobSpec& spec, std::string directory);

  // Reading (blob_core.cc).
  const BlobId& id() const { return id_; }
  std::uint64_t size() const { return size_; }
  const std::string& data_path() const { return data_path_; }
  CacheFile& data() const { return *data_; }
  Status Ensure(const Context& ctx, BlobUser& user, ByteRange range);
  Result<std::size_t> Read(const Context& ctx, BlobUser& user, std::uint64_t offset,
                           MutableBytes out);
  bool IsReady(ByteRange range) const;
  BlobProgress progress() const;
  /// Null until the first byte was wanted.
  LoadedMap* loaded() const { return loaded_.load(); }
  /// The map; of a user whose own map is the same.
  Result<LoadedMap*> Load(const Context& ctx, BlobUser& user);
  ReadEpoch& epoch() { return epoch_; }
  std::vector<std::uint32_t> AccessOrder() const;
  CacheEnv& env() const { return env_; }
  std::shared_ptr<void> PinReady(ByteRange range);

  // Users (blob_flights.cc). The last one is remembered when it goes.
  void AddUser(const std::shared_ptr<BlobUser>& user);
  void RemoveUser(const std::shared_ptr<BlobUser>& user);
  /// The images that use it, for log lines of work that is for no reader in particular.
  std::string ImageNames() const;
  /// The image whose share of the fetches its background work is.
  std::string FirstImage() const;
  /// The flight's own source first; the others are asked when it refuses.
  std::vector<std::shared_ptr<BlobSource>> SourcesFor(const Flight& flight) const;

  // Called by the fetcher and the decoder (blob_flights.cc).
  void Publish(Flight& flight, std::span<const std::uint32_t> units);
  void Fail(Flight& flight, std::span<const std::uint32_t> units, const Error& error);
  /// A unit arrived damaged: fetches it once more, elsewhere if possible, or fails it.
  void OnDamaged(Flight& flight, std::uint32_t unit, const std::string& served_by,
                 const Error& error);
  void OnTransferEnd(Flight& flight, const Status& status);
  /// From now on the flight keeps what it claims; false when a reader has taken it over.
  bool Begin(Flight& flight);

  // Background work (blob_background.cc).
  /// `user` is admitted first, as for a read: only then is it known what it may want.
  void Prefetch(const std::shared_ptr<BlobUser>& user, const std::vector<ByteRange>& ranges,
                Cause cause);
  void Fill(const std::shared_ptr<BlobUser>& user, FillEnd on_end, FillStart start);
  void StopBackground();
  /// Goes on with background work when it is time.
  void Pump();
  /// The callbacks of Fill() that are due; each is given once.
  std::vector<std::function<void()>> TakeEnds();
  /// See BlobCache.
  std::optional<Error> BackgroundError() const;
  /// Bytes that the next step of background work found no room for; 0 when it does not wait.
  std::uint64_t short_of() const;
  /// Goes on when there is room now for what did not fit; else says so, once.
  void TryRoom();

  // Durability and eviction (blob_durable.cc).
  Status Flush();
  /// Removes the chunks of the groups, never under a reader; bytes freed.
  Result<std::uint64_t> EvictGroups(std::span<const std::uint32_t> groups);
  /// Cancels everything that is in flight and waits for nothing.
  void CancelAll();
  bool idle() const;  // no flights, nothing to flush
  void SaveAccessOrder();
  std::uint64_t accounted_bytes() const { return accounted_.load(); }
  void Unaccount();

  // What the disk has lost (blob_repair.cc).
  /// After a read of the data file that failed: what cannot be read is forgotten, durably, so that
  /// it is fetched anew. OK: another try is worth it.
  Status Repair(const Context& ctx, LoadedMap& loaded, ChunkSpan span, const Error& cause);
  /// Before a write: a file that somebody cut short would grow over what was lost, with zeros.
  Status KeepSize();
  /// What the blob had on disk while it was not open; counted already.
  void AdoptAccounted(std::uint64_t bytes) { accounted_ = bytes; }

 private:
  struct Wanted {
    std::uint32_t unit;
    FlightPtr flight;
    bool own;
  };
  Result<std::unique_ptr<LoadedMap>> DoLoad(const Context& ctx, const BlobUser& user);
  Status Admit(const Context& ctx, LoadedMap& loaded, BlobUser& user);
  /// Compares the table of an image with the one in use, and takes over what only it knows.
  Status Learn(LoadedMap& loaded, const LoadedMap& own);
  Status CheckMap(LoadedMap& loaded);
  void ForgetDigests();
  Result<bool> AdoptStored(const LoadedMap& loaded, const ReadyFile::Subject& subject);
  bool IsStored(const BlobMap& map, const Chunk& chunk, std::vector<std::byte>& scratch);
  std::vector<std::uint32_t> StoredUnits(const BlobMap& map, std::span<const std::uint32_t> chunks);
  Status RecoverReady(LoadedMap& loaded);
  Status VerifyStored(LoadedMap& loaded);
  Status ResetFiles(const ReadyFile::Subject* subject);
  void LoadAccessOrder(LoadedMap& loaded);
  void RecordAccess(LoadedMap& loaded, ChunkSpan span);
  void Account(std::int64_t bytes);

  Status EnsureStep(const Context& ctx, const BlobUser& user, LoadedMap& loaded, ChunkSpan span);
  void ReadAheadOnHit(const BlobUser& user, LoadedMap& loaded, ChunkSpan span);
  std::vector<FlightPtr> Plan(const Context& ctx, LoadedMap& loaded, ChunkSpan span,
                              std::vector<Wanted>& wanted) DAVIT_REQUIRES(mutex_);
  bool Absent(const LoadedMap& loaded, std::uint32_t unit) const DAVIT_REQUIRES(mutex_);
  /// One flight from absent units, beginning at `first`, over gaps, up to the given ends.
  FlightPtr Claim(LoadedMap& loaded, Cause cause, std::uint32_t first, std::uint32_t last,
                  std::uint64_t until, std::uint64_t max_bytes, std::uint64_t max_gap)
      DAVIT_REQUIRES(mutex_);
  void ClaimReadAhead(LoadedMap& loaded, const ReadAhead::Advice& advice,
                      std::vector<FlightPtr>& started) DAVIT_REQUIRES(mutex_);
  void Launch(const FlightPtr& flight);
  /// Frees the units of a fill's flight that has not begun, so that a reader asks for just what it
  /// needs; the fill finds the rest again. False for other flights and when it is too late.
  bool Abandon(FlightPtr flight) DAVIT_REQUIRES(mutex_);
  void Hurry(const FlightPtr& flight) DAVIT_REQUIRES(mutex_);
  Result<bool> WaitFor(const Context& ctx, LoadedMap& loaded, const Wanted& wanted);

  struct Waiting {
    FillEnd end;
    FillStart start;
    std::shared_ptr<BlobUser> user;
    std::optional<Error> refused;  // the user's table contradicts what is here
  };
  struct Background {
    std::deque<std::pair<ByteRange, Cause>> ranges;
    std::optional<TimePoint> fill_asked_at;  // everything is wanted, since then
    bool at_once = false;                    // somebody waits until everything is here
    std::stop_source load_at_once;           // the same, for the map that is waited for
    bool filled = false;                     // it was all here, and is to stay so
    bool loading = false;
    int running = 0;
    std::size_t next_access = 0;      // position in the recorded accesses
    std::uint32_t cursor = 0;         // unit
    std::uint64_t seen_position = 0;  // of the readers, when the cursor was last moved
    std::set<std::uint32_t> skipped;  // units that failed in this round
    TimePoint retry_at{};
    Duration retry_delay{};
    std::stop_source stop;
    std::vector<std::shared_ptr<BlobUser>> unadmitted;  // asked, and were not compared yet
    TimePoint admit_at{};                               // not before
    std::vector<Waiting> on_end;
    std::int64_t short_of = 0;  // > 0: stopped, until there is room for so much
    TimePoint short_since{};
    bool said_short = false;
    std::optional<Error> failure;  // the last one since anything arrived
  };
  Error NoRoom() const;
  FlightPtr NextBackground(LoadedMap& loaded) DAVIT_REQUIRES(mutex_);
  FlightPtr NextOfRanges(LoadedMap& loaded) DAVIT_REQUIRES(mutex_);
  FlightPtr NextOfFill(LoadedMap& loaded) DAVIT_REQUIRES(mutex_);
  FlightPtr OfFill(FlightPtr flight) DAVIT_REQUIRES(mutex_);
  FlightPtr FromUnit(LoadedMap& loaded, std::uint32_t first, std::uint32_t last, Cause cause)
      DAVIT_REQUIRES(mutex_);
  static std::int64_t UnitDiskSize(const LoadedMap& loaded, std::uint32_t unit);
  /// A unit of a background flight has landed, one way or the other.
  void ReturnRoom(const Flight& flight, std::uint32_t unit) const;
  bool ReserveRoom(const LoadedMap& loaded, Flight& flight) DAVIT_REQUIRES(mutex_);
  void WantAdmitted(const std::shared_ptr<BlobUser>& user) DAVIT_REQUIRES(mutex_);
  void OnLoadedInBackground(const std::shared_ptr<BlobUser>& user, const Status& status);
  void LoadInBackground() DAVIT_REQUIRES(mutex_);
  void ScheduleRetry() DAVIT_REQUIRES(mutex_);
  std::vector<std::uint32_t> ClaimForEviction(LoadedMap& loaded,
                                              std::span<const std::uint32_t> groups,
                                              const FlightPtr& claim);
  void ReleaseEvicted(const Flight& claim);
  /// Takes the bits away from memory; the bytes they stood for on disk.
  std::uint64_t ClearReady(LoadedMap& loaded, std::span<const std::uint32_t> chunks);
  Result<std::uint64_t> EvictChunks(LoadedMap& loaded, std::span<const std::uint32_t> chunks)
      DAVIT_REQUIRES(durable_mutex_);
  /// Takes the bits away, on disk and in memory; what they stood for on disk. Readers may still be
  /// there: before the data is touched, epoch_.WaitForReaders() has to say that they are gone.
  Result<std::uint64_t> ForgetChunks(LoadedMap& loaded, std::span<const std::uint32_t> chunks)
      DAVIT_REQUIRES(durable_mutex_);
  Result<bool> ReadPiece(const LoadedMap& loaded, ByteRange piece, MutableBytes out);
  Status RepairNow(LoadedMap& loaded, ChunkSpan span, const Error& cause);
  Status DropUnreadable(LoadedMap& loaded, ChunkSpan span, const Error& cause)
      DAVIT_REQUIRES(durable_mutex_);
  Status RestoreSize(LoadedMap& loaded, std::uint64_t size) DAVIT_REQUIRES(durable_mutex_);
  bool CanRead(const Chunk& chunk, std::vector<std::byte>& scratch) const;
  /// Takes the units of the chunks, where nobody has them: nobody fetches them before
  /// ReleaseEvicted(). The chunks of those that were to be had.
  std::vector<std::uint32_t> ClaimChunks(const LoadedMap& loaded,
                                         std::span<const std::uint32_t> chunks,
                                         const FlightPtr& claim);
  void Refill();
  Status PunchChunks(const LoadedMap& loaded, std::span<const std::uint32_t> chunks);
  void IndexDigests(const LoadedMap& loaded, std::span<const std::uint32_t> chunks, bool add);

  CacheEnv& env_;
  const BlobId id_;
  const std::uint64_t size_;
  const std::string directory_;
  const std::string data_path_;
  std::unique_ptr<CacheFile> data_;

  Mutex load_mutex_;
  CondVar load_changed_;
  bool loading_ DAVIT_GUARDED_BY(load_mutex_) = false;
  std::unique_ptr<LoadedMap> loaded_owner_ DAVIT_GUARDED_BY(load_mutex_);
  std::atomic<LoadedMap*> loaded_{nullptr};
  ReadEpoch epoch_;
  std::atomic<int> pins_{0};
  std::atomic<std::uint64_t> ready_bytes_{0};
  std::atomic<std::uint32_t> ready_chunks_{0};
  std::atomic<std::uint64_t> accounted_{0};

  mutable Mutex mutex_;
  std::vector<std::shared_ptr<BlobUser>> users_ DAVIT_GUARDED_BY(mutex_);
  std::unordered_map<std::uint32_t, FlightPtr> flights_ DAVIT_GUARDED_BY(mutex_);  // by unit
  ReadAhead read_ahead_ DAVIT_GUARDED_BY(mutex_);
  std::vector<std::uint32_t> dirty_ DAVIT_GUARDED_BY(mutex_);  // chunks ready but not durable
  Background background_ DAVIT_GUARDED_BY(mutex_);
  std::vector<std::uint32_t> access_order_ DAVIT_GUARDED_BY(mutex_);
  std::size_t access_saved_ DAVIT_GUARDED_BY(mutex_) = 0;

  Mutex learn_mutex_;  // one image after the other is compared with what is in use
  Mutex durable_mutex_;
  std::unique_ptr<ReadyFile> ready_file_ DAVIT_GUARDED_BY(durable_mutex_);
  /// Units that could not be read and were fetched anew: a disk that loses everything must not
  /// make every read a request to the registry.
  std::map<std::uint32_t, TimePoint> repaired_ DAVIT_GUARDED_BY(durable_mutex_);
};

/// The order of first reads of a blob that is not open; empty when none is known.
std::vector<std::uint32_t> ReadAccessFile(const std::string& path);

/// Carries a flight out on the calling thread (fetcher.cc).
void RunFlight(const FlightPtr& flight);

}  // namespace davit::storage
