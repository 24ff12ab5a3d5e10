#include "tests/support/fake_blob/faulty_files.h"

#include <algorithm>
#include <cerrno>

namespace davit::test {
namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::uint64_t kBlock = 4096;

struct Content {
  std::vector<std::byte> bytes;
  std::set<std::uint64_t> blocks;  // allocated

  void Resize(std::uint64_t size) {
    bytes.resize(size);
    blocks.erase(blocks.lower_bound(DivUp(size, kBlock)), blocks.end());
  }
  void Write(std::uint64_t offset, Bytes data) {
    if (bytes.size() < offset + data.size()) bytes.resize(offset + data.size());
    std::copy(data.begin(), data.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    for (std::uint64_t b = offset / kBlock; b * kBlock < offset + data.size(); ++b)
      blocks.insert(b);
  }
  void Punch(ByteRange range) {
    const std::uint64_t end = std::min<std::uint64_t>(bytes.size(), range.offset + range.length);
    for (std::uint64_t i = range.offset; i < end; ++i) bytes[i] = std::byte{0};
    for (std::uint64_t b = DivUp(range.offset, kBlock); (b + 1) * kBlock <= end; ++b)
      blocks.erase(b);
  }
};

struct Op {
  enum Kind { kWrite, kTruncate, kPunch } kind;
  ByteRange range;
  std::vector<std::byte> data;
};

void Apply(Content& content, const Op& op) {
  switch (op.kind) {
    case Op::kWrite:
      content.Write(op.range.offset, op.data);
      break;
    case Op::kTruncate:
      content.Resize(op.range.length);
      break;
    case Op::kPunch:
      content.Punch(op.range);
      break;
  }
}

struct FileState {
  Content seen;     // what reads return
  Content durable;  // what is on the platter for sure
  std::vector<Op> pending;
};

}  // namespace

struct FaultyFiles::Disk {
  mutable Mutex mutex;
  std::map<std::string, FileState> files DAVIT_GUARDED_BY(mutex);
  bool off DAVIT_GUARDED_BY(mutex) = false;
  bool fail_next_sync DAVIT_GUARDED_BY(mutex) = false;
  std::uint64_t free_bytes DAVIT_GUARDED_BY(mutex) = 1ULL << 40;
  int free_bytes_asked DAVIT_GUARDED_BY(mutex) = 0;
  bool can_clone DAVIT_GUARDED_BY(mutex) = false;
  int clones DAVIT_GUARDED_BY(mutex) = 0;
  std::function<void()> after_clone DAVIT_GUARDED_BY(mutex);
  std::map<std::string, int> write_errors DAVIT_GUARDED_BY(mutex);
  std::map<std::string, int> sync_errors DAVIT_GUARDED_BY(mutex);
  std::map<std::string, int> open_errors DAVIT_GUARDED_BY(mutex);
  std::map<std::string, int> remove_errors DAVIT_GUARDED_BY(mutex);
  std::map<std::string, int> sync_count DAVIT_GUARDED_BY(mutex);

  std::map<std::string, std::map<std::uint64_t, bool>> bad DAVIT_GUARDED_BY(mutex);  // for good?

  bool AnyBad(const std::string& path, ByteRange range) const DAVIT_REQUIRES(mutex) {
    for (const auto& [suffix, blocks] : bad) {
      if (!path.ends_with(suffix)) continue;
      const auto at = blocks.lower_bound(range.offset / kBlock);
      if (at != blocks.end() && at->first * kBlock < range.offset + range.length) return true;
    }
    return false;
  }
  /// False when a bad block is only touched in part.
  bool Overwrite(const std::string& path, ByteRange range) DAVIT_REQUIRES(mutex) {
    for (auto& [suffix, blocks] : bad) {
      if (!path.ends_with(suffix)) continue;
      std::erase_if(blocks, [&](const auto& block) {
        const std::uint64_t begin = block.first * kBlock;
        return !block.second && range.offset <= begin &&
               begin + kBlock <= range.offset + range.length;
      });
      for (const auto& [block, for_good] : blocks) {
        const std::uint64_t begin = block * kBlock;
        if (!for_good && begin < range.offset + range.length && range.offset < begin + kBlock)
          return false;
      }
    }
    return true;
  }

  static int Find(const std::map<std::string, int>& errors, const std::string& path) {
    for (const auto& [suffix, error] : errors) {
      if (path.ends_with(suffix)) return error;
    }
    return 0;
  }
};

namespace {

class FaultyFile final : public storage::CacheFile {
 public:
  FaultyFile(std::shared_ptr<FaultyFiles::Disk> disk, std::string path)
      : disk_(std::move(disk)), path_(std::move(path)) {}

  int fd() const override { return -1; }

  Result<std::size_t> ReadAt(std::uint64_t offset, MutableBytes out) override {
    MutexLock lock(disk_->mutex);
    if (disk_->off) return Error::FromErrno(EIO, "read " + path_);
    const std::vector<std::byte>& bytes = disk_->files[path_].seen.bytes;
    if (offset >= bytes.size()) return 0;
    if (disk_->AnyBad(path_, {offset, out.size()})) return Error::FromErrno(EIO, "read " + path_);
    const std::size_t n = std::min<std::uint64_t>(out.size(), bytes.size() - offset);
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), n, out.begin());
    return n;
  }
  Status WriteAt(std::uint64_t offset, Bytes data) override {
    return Do(Op{Op::kWrite, {offset, data.size()}, {data.begin(), data.end()}});
  }
  Status CloneFrom(storage::CacheFile& source, std::uint64_t source_offset,
                   ByteRange range) override {
    std::function<void()> after;
    {
      MutexLock lock(disk_->mutex);
      if (!disk_->can_clone) return Error(Code::kUnsupported, "no clones");
      const bool aligned =
          source_offset % kBlock == 0 && range.offset % kBlock == 0 && range.length % kBlock == 0;
      if (!aligned || range.offset + range.length > disk_->files[path_].seen.bytes.size())
        return Error::FromErrno(EINVAL, "clone to " + path_);
      after = disk_->after_clone;
    }
    std::vector<std::byte> bytes(range.length);
    DAVIT_TRY_ASSIGN(const std::size_t got, source.ReadAt(source_offset, bytes));
    if (got < bytes.size()) return Error::FromErrno(EINVAL, "clone to " + path_);
    DAVIT_TRY(WriteAt(range.offset, bytes));
    {
      MutexLock lock(disk_->mutex);
      ++disk_->clones;
    }
    if (after) after();
    return {};
  }
  Status PunchHole(ByteRange range) override { return Do(Op{Op::kPunch, range, {}}); }
  Status Truncate(std::uint64_t size) override { return Do(Op{Op::kTruncate, {0, size}, {}}); }
  Status SyncData() override {
    MutexLock lock(disk_->mutex);
    ++disk_->sync_count[path_];
    if (disk_->off || std::exchange(disk_->fail_next_sync, false)) {
      return Error::FromErrno(EIO, "sync " + path_);
    }
    if (const int error = FaultyFiles::Disk::Find(disk_->sync_errors, path_)) {
      // As Linux does: the pages count as clean afterwards, whether they reached the disk or not.
      disk_->files[path_].pending.clear();
      disk_->files[path_].seen = disk_->files[path_].durable;
      return Error::FromErrno(error, "sync " + path_);
    }
    FileState& file = disk_->files[path_];
    for (const Op& op : file.pending) Apply(file.durable, op);
    file.pending.clear();
    return {};
  }
  Result<std::uint64_t> Size() override {
    MutexLock lock(disk_->mutex);
    return disk_->files[path_].seen.bytes.size();
  }
  Result<std::uint64_t> AllocatedBytes() override {
    MutexLock lock(disk_->mutex);
    return disk_->files[path_].seen.blocks.size() * kBlock;
  }

 private:
  Status Do(Op op) {
    MutexLock lock(disk_->mutex);
    if (disk_->off) return Error::FromErrno(EIO, "write " + path_);
    if (const int error = FaultyFiles::Disk::Find(disk_->write_errors, path_);
        error != 0 && op.kind != Op::kPunch) {
      return Error::FromErrno(error, "write " + path_);
    }
    FileState& file = disk_->files[path_];
    if (op.kind != Op::kTruncate && !disk_->Overwrite(path_, Whole(file, op.range)))
      return Error::FromErrno(EIO, "write " + path_);
    Apply(file.seen, op);
    file.pending.push_back(std::move(op));
    return {};
  }

  // The last block of a file ends with it.
  static ByteRange Whole(const FileState& file, ByteRange range) {
    if (range.offset + range.length >= file.seen.bytes.size())
      range.length = AlignUp(range.offset + range.length, kBlock) - range.offset;
    return range;
  }

  const std::shared_ptr<FaultyFiles::Disk> disk_;
  const std::string path_;
};

// Any subset of what was not synced, in any order, writes cut at sectors.
void Survive(FileState& file, std::mt19937_64& random) {
  std::shuffle(file.pending.begin(), file.pending.end(), random);
  for (const Op& op : file.pending) {
    const std::uint64_t fate = random() % 3;
    if (fate == 0) continue;
    if (fate == 1 || op.kind != Op::kWrite) {
      Apply(file.durable, op);
      continue;
    }
    for (std::uint64_t at = 0; at < op.data.size();) {
      const std::uint64_t take =
          std::min<std::uint64_t>(op.data.size() - at, kSector - (op.range.offset + at) % kSector);
      if (random() % 2 == 0)
        file.durable.Write(op.range.offset + at, Bytes(op.data).subspan(at, take));
      at += take;
    }
  }
  file.pending.clear();
  file.seen = file.durable;
}

}  // namespace

FaultyFiles::FaultyFiles() : disk_(std::make_shared<Disk>()) {}
FaultyFiles::~FaultyFiles() = default;

Result<std::unique_ptr<storage::CacheFile>> FaultyFiles::Open(const std::string& path) {
  MutexLock lock(disk_->mutex);
  if (disk_->off) return Error::FromErrno(EIO, "open " + path);
  if (const int error = Disk::Find(disk_->open_errors, path); error != 0) {
    return Error::FromErrno(error, "open " + path);
  }
  disk_->files[path];
  return std::make_unique<FaultyFile>(disk_, path);
}

Status FaultyFiles::Remove(const std::string& path) {
  MutexLock lock(disk_->mutex);
  if (const int error = Disk::Find(disk_->remove_errors, path); error != 0) {
    return Error::FromErrno(error, "remove " + path);
  }
  disk_->files.erase(path);
  return {};
}

Result<std::uint64_t> FaultyFiles::FreeBytes(const std::string&) {
  MutexLock lock(disk_->mutex);
  ++disk_->free_bytes_asked;
  return disk_->free_bytes;
}

void FaultyFiles::PowerCut(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  MutexLock lock(disk_->mutex);
  disk_->off = true;
  for (auto& [path, file] : disk_->files) Survive(file, random);
}

void FaultyFiles::PowerOn() {
  MutexLock lock(disk_->mutex);
  disk_->off = false;
}

int FaultyFiles::free_bytes_asked() const {
  MutexLock lock(disk_->mutex);
  return disk_->free_bytes_asked;
}

void FaultyFiles::AllowClones(std::function<void()> after_clone) {
  MutexLock lock(disk_->mutex);
  disk_->can_clone = true;
  disk_->after_clone = std::move(after_clone);
}

int FaultyFiles::clones() const {
  MutexLock lock(disk_->mutex);
  return disk_->clones;
}

void FaultyFiles::set_free_bytes(std::uint64_t bytes) {
  MutexLock lock(disk_->mutex);
  disk_->free_bytes = bytes;
}

void FaultyFiles::FailWrites(const std::string& suffix, int error) {
  MutexLock lock(disk_->mutex);
  disk_->write_errors[suffix] = error;
}

void FaultyFiles::FailOpens(const std::string& suffix, int error) {
  MutexLock lock(disk_->mutex);
  disk_->open_errors[suffix] = error;
}

void FaultyFiles::FailRemoves(const std::string& suffix, int error) {
  MutexLock lock(disk_->mutex);
  disk_->remove_errors[suffix] = error;
}

void FaultyFiles::FailSyncs(const std::string& suffix, int error) {
  MutexLock lock(disk_->mutex);
  disk_->sync_errors[suffix] = error;
}

void FaultyFiles::BreakBlocks(const std::string& suffix, ByteRange range, bool for_good) {
  MutexLock lock(disk_->mutex);
  for (std::uint64_t b = range.offset / kBlock; b * kBlock < range.offset + range.length; ++b)
    disk_->bad[suffix][b] = for_good;
}

void FaultyFiles::FailNextSync() {
  MutexLock lock(disk_->mutex);
  disk_->fail_next_sync = true;
}

int FaultyFiles::syncs(const std::string& suffix) const {
  MutexLock lock(disk_->mutex);
  int count = 0;
  for (const auto& [path, n] : disk_->sync_count) {
    if (path.ends_with(suffix)) count += n;
  }
  return count;
}

std::uint64_t FaultyFiles::AllocatedBytes() const {
  MutexLock lock(disk_->mutex);
  std::uint64_t blocks = 0;
  for (const auto& [path, file] : disk_->files) blocks += file.seen.blocks.size();
  return blocks * kBlock;
}

}  // namespace davit::test
