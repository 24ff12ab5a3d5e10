#include "rafs/builder/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <thread>

#include "common/base/sync.h"
#include "common/base/thread_pool.h"
#include "rafs/builder/chunk_sequencer.h"
#include "rafs/builder/segment.h"
#include "rafs/layout/v6.h"

namespace davit::rafs {
namespace {

// A segment holds at least this much, so that locks and wake-ups are per megabyte, not per file.
constexpr std::size_t kMinSegmentBytes = 1U << 20;
// Bounds of what a hostile source can make the index of its files cost.
constexpr std::uint64_t kMaxFileChunks = v6::kMaxChunksPerBlob;
constexpr std::uint64_t kMaxTreeChunks = 1ULL << 26;

// One segment after the other goes: filling -> to_hash -> (in order) sequencing -> to_compress ->
// (in order) writing -> free. Workers take the task closest to the end, so that memory is freed
// before more is filled.
class Pipeline final : public ChunkPipeline {
 public:
  Pipeline(const BuildOptions& options, BlobFile& out, ChunkDict& dict, std::uint32_t blob_index,
           std::size_t threads, std::size_t segments, std::size_t segment_bytes)
      : options_(options),
        out_(out),
        sequencer_(options, dict, blob_index),
        segment_bytes_(segment_bytes) {
    for (std::size_t i = 0; i < segments; ++i) {
      segments_.push_back(std::make_unique<Segment>());
      free_.push_back(segments_.back().get());
    }
    pool_ = std::make_unique<ThreadPool>("build", threads, threads);
  }

  ~Pipeline() override {
    {
      MutexLock lock(mutex_);
      if (!finished_ && !error_) error_ = Error(Code::kCancelled, "build was given up");
      work_.NotifyAll();
    }
    pool_->Shutdown();
  }

  Status StartWorkers() {
    for (std::size_t i = 0; i < pool_->thread_count(); ++i) {
      DAVIT_TRY_ASSIGN(std::unique_ptr<codec::Compressor> compressor,
                       codec::MakeCompressor(options_.compressor, options_.compression_level));
      DAVIT_TRY(pool_->Submit([this, c = std::move(compressor)] { Work(*c); }));
    }
    return {};
  }

  Status BeginFile(std::shared_ptr<TreeInode> file, const std::string& name) override {
    if (missing_ != 0) return Error(Code::kInternal, "a file was begun before the last one ended");
    const std::uint64_t chunks = DivUp(file->size, options_.chunk_size);
    tree_chunks_ += chunks;
    if (chunks > kMaxFileChunks || tree_chunks_ > kMaxTreeChunks) {
      return Error(Code::kInvalidArgument,
                   fmt::format("file '{}' with {} bytes needs {} chunks; the limits are {} in a "
                               "file and {} in all",
                               name, file->size, chunks, kMaxFileChunks, kMaxTreeChunks))
          .WithHint("use a larger chunk size");
    }
    if (file->size == 0) return {};
    missing_ = file->size;
    file_ = file.get();
    file_chunks_ = chunks;
    files_.push_back(std::move(file));
    return StartPiece();
  }

  MutableBytes Space() override {
    if (missing_ == 0) return {};
    return MutableBytes(filling_->data.get() + piece_.offset, piece_.size).subspan(piece_filled_);
  }

  Status Commit(std::size_t count) override {
    piece_filled_ += static_cast<std::uint32_t>(count);
    missing_ -= count;
    if (piece_filled_ < piece_.size) return {};
    filling_->used += piece_.size;
    return EndPiece();
  }

  Status AppendZeros(std::uint64_t count) override {
    while (count > 0) {
      if (missing_ == 0) return Error(Code::kInternal, "more bytes than the file's size");
      if (piece_filled_ == 0 && piece_.size == options_.chunk_size && count >= piece_.size) {
        // A whole chunk of zeros costs neither memory nor a digest, however long the hole is.
        piece_.zeros = true;
        piece_.digest = ZeroDigest();
        piece_.crc32c = zero_crc_;
        count -= piece_.size;
        missing_ -= piece_.size;
        DAVIT_TRY(EndPiece());
        continue;
      }
      const MutableBytes space = Space();
      const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(space.size(), count));
      std::memset(space.data(), 0, n);
      count -= n;
      DAVIT_TRY(Commit(n));
    }
    return {};
  }

  std::uint64_t missing() const override { return missing_; }

  Result<ChunkOutput> Finish() override {
    if (missing_ != 0) return Error(Code::kInternal, "the last file is not complete");
    if (filling_ == nullptr) DAVIT_TRY(AcquireSegment());
    filling_->last = true;
    PushSegment();
    {
      MutexLock lock(mutex_);
      while (!finished_ && !error_) done_.Wait(mutex_);
      if (error_) return *error_;
    }
    pool_->Shutdown();
    return sequencer_.TakeOutput();
  }

 private:
  // --- the feeding thread ---

  Status AcquireSegment() {
    MutexLock lock(mutex_);
    while (free_.empty() && !error_) done_.Wait(mutex_);
    if (error_) return *error_;
    filling_ = free_.back();
    free_.pop_back();
    filling_->Reset(segment_bytes_);
    return {};
  }

  void PushSegment() {
    MutexLock lock(mutex_);
    sequence_order_.push_back(filling_);
    to_hash_.push_back(filling_);
    filling_ = nullptr;
    work_.NotifyAll();
  }

  Status StartPiece() {
    const auto size =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(missing_, options_.chunk_size));
    if (filling_ != nullptr && (filling_->used + size > segment_bytes_ ||
                                filling_->pieces.size() >= Segment::kMaxPieces)) {
      PushSegment();
    }
    if (filling_ == nullptr) DAVIT_TRY(AcquireSegment());
    piece_ = Piece{.file = file_, .offset = filling_->used, .size = size};
    piece_.single = file_chunks_ == 1;
    piece_filled_ = 0;
    return {};
  }

  Status EndPiece() {
    filling_->pieces.push_back(piece_);
    if (missing_ == 0) return {};
    return StartPiece();
  }

  const Digest& ZeroDigest() {
    if (!zero_digest_) {
      const std::vector<std::byte> zeros(options_.chunk_size);
      zero_digest_ = Digest::Of(options_.digester, zeros);
      zero_crc_ = Crc32c(zeros);
    }
    return *zero_digest_;
  }

  // --- the workers ---

  enum class Task { kNone, kWrite, kSequence, kCompress, kHash };

  // Takes the most advanced segment that can go on.
  Task Pick(Segment*& segment) DAVIT_REQUIRES(mutex_) {
    const auto take = [&](std::deque<Segment*>& queue) {
      segment = queue.front();
      queue.pop_front();
    };
    if (!writing_ && !write_order_.empty() && write_order_.front()->compressed) {
      writing_ = true;
      take(write_order_);
      return Task::kWrite;
    }
    if (!sequencing_ && !sequence_order_.empty() && sequence_order_.front()->hashed) {
      sequencing_ = true;
      take(sequence_order_);
      return Task::kSequence;
    }
    if (!to_compress_.empty()) {
      take(to_compress_);
      return Task::kCompress;
    }
    if (!to_hash_.empty()) {
      take(to_hash_);
      return Task::kHash;
    }
    return Task::kNone;
  }

  Status Run(Task task, Segment& segment, codec::Compressor& compressor,
             std::vector<std::byte>& scratch) {
    switch (task) {
      case Task::kHash:
        HashSegment(segment, options_.digester);
        return {};
      case Task::kSequence:
        return sequencer_.Sequence(segment);
      case Task::kCompress:
        return options_.compressor == codec::Algorithm::kNone
                   ? Status{}
                   : CompressSegment(segment, compressor, scratch);
      case Task::kWrite:
        return sequencer_.Write(segment, out_);
      case Task::kNone:
        break;
    }
    return {};
  }

  void Done(Task task, Segment* segment) DAVIT_REQUIRES(mutex_) {
    switch (task) {
      case Task::kHash:
        segment->hashed = true;
        break;
      case Task::kSequence:
        sequencing_ = false;
        write_order_.push_back(segment);
        to_compress_.push_back(segment);
        break;
      case Task::kCompress:
        segment->compressed = true;
        break;
      case Task::kWrite:
        writing_ = false;
        if (segment->last) finished_ = true;
        free_.push_back(segment);
        done_.NotifyAll();
        break;
      case Task::kNone:
        break;
    }
    work_.NotifyAll();
  }

  void Work(codec::Compressor& compressor) {
    std::vector<std::byte> scratch;
    while (true) {
      Segment* segment = nullptr;
      Task task = Task::kNone;
      {
        MutexLock lock(mutex_);
        while (!error_ && !finished_ && (task = Pick(segment)) == Task::kNone) work_.Wait(mutex_);
        if (error_ || finished_) return;
      }
      Status status = Run(task, *segment, compressor, scratch);
      MutexLock lock(mutex_);
      if (!status.ok()) {
        if (!error_) error_ = std::move(status).error();
        work_.NotifyAll();
        done_.NotifyAll();
        return;
      }
      Done(task, segment);
    }
  }

  const BuildOptions& options_;
  BlobFile& out_;             // the one thread that writes
  ChunkSequencer sequencer_;  // its Sequence and Write parts each by one thread at a time
  const std::size_t segment_bytes_;
  std::vector<std::unique_ptr<Segment>> segments_;

  // Of the feeding thread.
  Segment* filling_ = nullptr;
  Piece piece_{};
  std::uint32_t piece_filled_ = 0;
  TreeInode* file_ = nullptr;
  std::uint64_t file_chunks_ = 0, missing_ = 0, tree_chunks_ = 0;
  std::optional<Digest> zero_digest_;
  std::uint32_t zero_crc_ = 0;
  // Files whose chunks are still on their way must not die, even when the source drops them.
  std::vector<std::shared_ptr<TreeInode>> files_;

  Mutex mutex_;
  CondVar work_, done_;
  std::vector<Segment*> free_ DAVIT_GUARDED_BY(mutex_);
  std::deque<Segment*> to_hash_ DAVIT_GUARDED_BY(mutex_);
  std::deque<Segment*> sequence_order_ DAVIT_GUARDED_BY(mutex_);
  std::deque<Segment*> to_compress_ DAVIT_GUARDED_BY(mutex_);
  std::deque<Segment*> write_order_ DAVIT_GUARDED_BY(mutex_);
  bool sequencing_ DAVIT_GUARDED_BY(mutex_) = false;
  bool writing_ DAVIT_GUARDED_BY(mutex_) = false;
  bool finished_ DAVIT_GUARDED_BY(mutex_) = false;
  std::optional<Error> error_ DAVIT_GUARDED_BY(mutex_);

  std::unique_ptr<ThreadPool> pool_;  // last: joins before the rest goes away
};

}  // namespace

Status ChunkPipeline::Append(Bytes data) {
  while (!data.empty()) {
    const MutableBytes space = Space();
    if (space.empty()) return Error(Code::kInternal, "more bytes than the file's size");
    const std::size_t n = std::min(space.size(), data.size());
    std::memcpy(space.data(), data.data(), n);
    DAVIT_TRY(Commit(n));
    data = data.subspan(n);
  }
  return {};
}

Result<std::unique_ptr<ChunkPipeline>> ChunkPipeline::Start(const BuildOptions& options,
                                                            BlobFile& out, ChunkDict& dict,
                                                            std::uint32_t blob_index) {
  const std::size_t cpus = std::max(1U, std::thread::hardware_concurrency());
  const std::size_t threads =
      options.threads > 0 ? static_cast<std::size_t>(options.threads) : cpus;
  const std::size_t segment_bytes = std::max<std::size_t>(kMinSegmentBytes, options.chunk_size);
  // Each worker also has a scratch buffer of about a chunk, and batches copy what they hold.
  const std::size_t per_segment = segment_bytes * (options.batch_size != 0 ? 2 : 1);
  const std::size_t scratch =
      options.compressor == codec::Algorithm::kNone ? 0 : threads * options.chunk_size;
  const std::size_t budget = options.max_buffer_bytes > scratch + 2 * per_segment
                                 ? options.max_buffer_bytes - scratch
                                 : 2 * per_segment;
  const std::size_t segments = std::clamp<std::size_t>(budget / per_segment, 2, 4 * threads + 2);
  auto pipeline =
      std::make_unique<Pipeline>(options, out, dict, blob_index, threads, segments, segment_bytes);
  DAVIT_TRY(pipeline->StartWorkers());
  return std::unique_ptr<ChunkPipeline>(std::move(pipeline));
}

}  // namespace davit::rafs
