#include <fmt/format.h>
#include <sys/stat.h>

#include <unordered_set>

#include "rafs/metadata/metadata.h"

namespace davit::rafs {
namespace {

/// Deeper trees cannot be reached by paths, and hostile ones would make paths of any length.
constexpr std::size_t kMaxDepth = 4096;
/// Entries read from a directory at a time.
constexpr std::size_t kBatch = 512;
/// A directory entry takes at least this much of a bootstrap (a name of one byte). More entries
/// than that can only come from directories that share their blocks, which no writer makes.
constexpr std::uint64_t kMinEntryBytes = 13;

/// A directory that is being walked.
struct Frame {
  InodeId dir;
  std::size_t path_length = 0;
  std::uint64_t cookie = 0;
  std::vector<DirEntry> entries;  // read, not yet visited; names point into the bootstrap
  std::size_t next = 0;
  bool complete = false;
};

Status Refill(const Metadata& metadata, Frame& frame) {
  frame.entries.clear();
  frame.next = 0;
  frame.complete = true;
  return metadata.ListDir(frame.dir, frame.cookie, [&](const DirEntry& entry, std::uint64_t next) {
    frame.cookie = next;
    if (entry.name != "." && entry.name != "..") {
      frame.entries.push_back(entry);
    }
    frame.complete = frame.entries.size() < kBatch;
    return frame.complete;
  });
}

class Walker {
 public:
  Walker(const Metadata& metadata, const WalkFn& fn) : metadata_(metadata), fn_(fn) {}
  Status Run(InodeId from);

 private:
  Status Enter(InodeId dir);
  Status Visit(DirEntry entry);

  const Metadata& metadata_;
  const WalkFn& fn_;
  std::string path_;
  std::uint64_t visited_ = 0;
  std::vector<Frame> stack_;
  std::unordered_set<std::uint64_t> directories_;
};

Status Walker::Enter(InodeId dir) {
  // A directory has one place in a tree: a second one means a cycle, or work without end.
  if (!directories_.insert(dir.value).second) {
    return Error(Code::kDataLoss,
                 fmt::format("directory {} is in the tree more than once", dir.value));
  }
  if (stack_.size() >= kMaxDepth) {
    return Error(Code::kDataLoss, fmt::format("directories are nested deeper than {}", kMaxDepth));
  }
  Frame frame;
  frame.dir = dir;
  frame.path_length = path_.size();
  stack_.push_back(std::move(frame));
  return {};
}

Status Walker::Visit(DirEntry entry) {
  if (++visited_ > metadata_.image().size() / kMinEntryBytes) {
    return Error(Code::kDataLoss, "the tree has more entries than its bootstrap can hold");
  }
  if (path_ != "/") path_ += '/';
  path_ += entry.name;
  DAVIT_TRY_ASSIGN(const Attributes attributes, metadata_.Stat(entry.id));
  DAVIT_TRY(fn_(path_, attributes));
  return S_ISDIR(attributes.mode) ? Enter(entry.id) : Status();
}

Status Walker::Run(InodeId from) {
  DAVIT_TRY_ASSIGN(const Attributes attributes, metadata_.Stat(from));
  path_ = "/";
  DAVIT_TRY(fn_(path_, attributes));
  if (!S_ISDIR(attributes.mode)) return {};
  DAVIT_TRY(Enter(from));
  while (!stack_.empty()) {
    Frame& frame = stack_.back();
    path_.resize(frame.path_length);
    if (frame.next == frame.entries.size()) {
      if (frame.complete) {
        stack_.pop_back();
        continue;
      }
      DAVIT_TRY(Refill(metadata_, frame));
      continue;
    }
    DAVIT_TRY(Visit(frame.entries[frame.next++]));
  }
  return {};
}

}  // namespace

Result<InodeId> LookupPath(const Metadata& metadata, std::string_view path) {
  InodeId current = metadata.root();
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
    if (part.empty()) continue;
    if (part == "." || part == "..") {
      return Error(Code::kInvalidArgument, "paths in an image must not contain \".\" or \"..\"")
          .WithHint("give the path from the image's root");
    }
    DAVIT_TRY_ASSIGN(current, metadata.Lookup(current, part));
  }
  return current;
}

Status Walk(const Metadata& metadata, InodeId from, const WalkFn& fn) {
  return Walker(metadata, fn).Run(from);
}

}  // namespace davit::rafs
