// One flight from the network to the decoders.

#include <algorithm>
#include <cstring>

#include "common/base/log.h"
#include "storage/cache/blob_core.h"
#include "storage/cache/decoder.h"
#include "storage/cache/reuse.h"

namespace davit::storage {
namespace {

constexpr std::size_t kBatchBytes = 128U << 10;
constexpr std::size_t kBufferBytes = 256U << 10;

bool SourceRefuses(Code code) {
  return code == Code::kUnauthenticated || code == Code::kPermissionDenied ||
         code == Code::kNotFound;
}

// Cuts the stream of a range into units and hands them over in batches.
class Transfer {
 public:
  Transfer(const FlightPtr& flight, std::vector<std::uint32_t> units)
      : flight_(flight),
        core_(*flight->blob),
        env_(core_.env()),
        map_(*core_.loaded()->map),
        units_(std::move(units)),
        ctx_{.cause = flight->cause, .stop = flight->stop.get_token()} {
    how_.avoid_endpoint = flight->avoid_endpoint;
  }

  /// Fetches what has not been handed over yet, with one request per run of neighbours.
  Status Run(BlobSource& source) {
    while (next_ < units_.size()) {
      DAVIT_TRY(FetchRun(source));
    }
    return {};
  }
  /// The units that did not come.
  std::span<const std::uint32_t> missing() const { return std::span(units_).subspan(handed_over_); }

 private:
  Unit UnitNo(std::size_t i) const { return map_.UnitAt(units_[i]); }
  Status FetchRun(BlobSource& source);
  Status OnPiece(Bytes piece);
  Status OnUnitBegin(const Unit& unit);
  void OnUnitEnd(const Unit& unit);
  void HandOver();
  Status HandOverEarly();
  bool SomebodyWaits() const {
    return flight_->cause == Cause::kDemand || flight_->hurry.stop_requested();
  }

  const FlightPtr& flight_;
  BlobCore& core_;
  CacheEnv& env_;
  const BlobMap& map_;
  const std::vector<std::uint32_t> units_;
  const Context ctx_;
  SourceRead how_;
  std::size_t next_ = 0;         // the unit that is being received
  std::size_t handed_over_ = 0;  // units before this one belong to the decoders
  std::uint64_t position_ = 0;   // in the blob
  std::size_t used_ = 0;         // of the buffer, by complete units
  std::size_t filled_ = 0;       // by the unit that is being received
  UnitBatch batch_;
};

Status Transfer::FetchRun(BlobSource& source) {
  const std::uint64_t begin = UnitNo(next_).compressed_offset;
  std::uint64_t end = begin + UnitNo(next_).compressed_size;
  for (std::size_t i = next_ + 1; i < units_.size(); ++i) {
    const Unit unit = UnitNo(i);
    if (unit.compressed_offset < end || unit.compressed_offset - end > env_.options.merge_gap_bytes)
      break;
    end = unit.compressed_offset + unit.compressed_size;
  }
  position_ = begin;
  filled_ = 0;
  const Status status = env_.scheduler.Fetch(
      ctx_, source, ByteRange{begin, end - begin}, how_,
      [this](Bytes piece) { return OnPiece(piece); }, flight_->hurry.get_token());
  HandOver();
  return status;
}

Status Transfer::OnPiece(Bytes piece) {
  env_.counters.fetched_bytes.fetch_add(piece.size(), std::memory_order_relaxed);
  while (!piece.empty()) {
    if (next_ == units_.size()) return Error(Code::kInternal, "more bytes than were asked for");
    const Unit unit = UnitNo(next_);
    if (position_ < unit.compressed_offset) {  // a gap between units
      const std::size_t skip =
          std::min<std::uint64_t>(piece.size(), unit.compressed_offset - position_);
      piece = piece.subspan(skip);
      position_ += skip;
      continue;
    }
    if (filled_ == 0) DAVIT_TRY(OnUnitBegin(unit));
    const std::size_t take = std::min<std::size_t>(piece.size(), unit.compressed_size - filled_);
    std::memcpy(batch_.buffer.bytes().data() + used_ + filled_, piece.data(), take);
    piece = piece.subspan(take);
    position_ += take;
    filled_ += take;
    if (filled_ == unit.compressed_size) OnUnitEnd(unit);
  }
  if (!batch_.units.empty() && SomebodyWaits()) return HandOverEarly();
  return {};
}

// No buffer is held while waiting for another one: transfers cannot block each other for good.
Status Transfer::OnUnitBegin(const Unit& unit) {
  if (batch_.buffer && used_ + unit.compressed_size <= batch_.buffer.bytes().size()) return {};
  HandOver();
  const bool background = !SomebodyWaits() && flight_->cause != Cause::kReadAhead;
  DAVIT_TRY_ASSIGN(
      batch_.buffer,
      env_.buffers.Acquire(ctx_, std::max<std::size_t>(kBufferBytes, unit.compressed_size),
                           background));
  return {};
}

void Transfer::OnUnitEnd(const Unit& unit) {
  batch_.units.push_back(UnitBatch::Piece{.unit = units_[next_],
                                          .offset = static_cast<std::uint32_t>(used_),
                                          .size = unit.compressed_size});
  used_ += filled_;
  filled_ = 0;
  ++next_;
  if (used_ >= kBatchBytes) HandOver();
}

void Transfer::HandOver() {
  UnitBatch batch = std::exchange(batch_, UnitBatch{});
  used_ = 0;
  if (batch.units.empty()) return;
  handed_over_ = next_;
  batch.flight = flight_;
  batch.served_by = how_.served_by;
  auto shared = std::make_shared<UnitBatch>(std::move(batch));
  if (!env_.decode->Submit([shared] { DecodeBatch(*shared); }).ok()) DecodeBatch(*shared);
}

// Somebody waits for a unit that is complete: it goes now, and the beginning of the next one
// moves to a new buffer.
Status Transfer::HandOverEarly() {
  const Bytes begun = batch_.buffer.bytes().subspan(used_, filled_);
  const std::vector<std::byte> kept(begun.begin(), begun.end());
  HandOver();
  if (kept.empty()) return {};
  DAVIT_TRY(OnUnitBegin(UnitNo(next_)));
  std::memcpy(batch_.buffer.bytes().data(), kept.data(), kept.size());
  return {};
}

}  // namespace

void RunFlight(const FlightPtr& flight) {
  BlobCore& core = *flight->blob;
  const log::Scope scope(flight->log_fields);
  if (!core.Begin(*flight))
    return core.OnTransferEnd(*flight, Error(Code::kCancelled, "not begun"));
  std::vector<std::uint32_t> units;
  for (std::uint32_t i = 0; i < flight->claimed.size(); ++i) {
    if (flight->claimed[i]) units.push_back(flight->first + i);
  }
  Transfer transfer(flight, CopyFromOtherBlobs(*flight, std::move(units)));
  Status status;
  for (const std::shared_ptr<BlobSource>& source : core.SourcesFor(*flight)) {
    status = transfer.Run(*source);
    if (status.ok() || !SourceRefuses(status.error().code())) break;
  }
  if (!status.ok()) core.Fail(*flight, transfer.missing(), status.error());
  core.OnTransferEnd(*flight, status);
}

}  // namespace davit::storage
