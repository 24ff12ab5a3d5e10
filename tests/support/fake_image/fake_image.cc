#include "tests/support/fake_image/fake_image.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace davit::testing {
namespace {

struct Inode {
  rafs::Attributes attributes;
  std::map<std::string, std::uint64_t> children;  // sorted bytewise, as in an image
  std::uint64_t parent = 0;
  std::string target;
  std::vector<std::pair<std::string, std::string>> xattrs;
  std::uint64_t blob_offset = 0;
  bool hole = false;
  bool damaged = false;
};

using Inodes = std::map<std::uint64_t, Inode>;

class FakeMetadata : public rafs::Metadata {
 public:
  FakeMetadata(Inodes inodes, std::uint64_t root, bool has_xattrs, bool has_owners,
               std::uint64_t blob_size)
      : inodes_(std::move(inodes)), root_(root) {
    info_.version = "v6";
    info_.inodes = inodes_.size();
    info_.has_xattrs = has_xattrs;
    info_.explicit_uid_gid = has_owners;
    blobs_.resize(1);
    blobs_[0].id.value = std::string(64, 'b');
    blobs_[0].ci.uncompressed_size = blob_size;
  }

  const rafs::ImageInfo& info() const override { return info_; }
  const std::vector<rafs::BlobRecord>& blobs() const override { return blobs_; }
  rafs::InodeId root() const override { return {root_}; }
  // There is no bootstrap; only the size matters, as a bound of how many entries there can be.
  Bytes image() const override { return AsBytes(bootstrap_); }

  Result<rafs::InodeId> Lookup(rafs::InodeId parent, std::string_view name) const override {
    DAVIT_TRY_ASSIGN(const Inode* dir, Get(parent));
    if (!S_ISDIR(dir->attributes.mode)) {
      return Error(Code::kInvalidArgument, "not a directory", ENOTDIR);
    }
    if (name == ".") return parent;
    if (name == "..") return rafs::InodeId{dir->parent};
    const auto found = dir->children.find(std::string(name));
    if (found == dir->children.end()) return Error(Code::kNotFound, "no such name");
    return rafs::InodeId{found->second};
  }

  Result<rafs::Attributes> Stat(rafs::InodeId id) const override {
    DAVIT_TRY_ASSIGN(const Inode* inode, Get(id));
    if (inode->damaged) return Error(Code::kDataLoss, "the inode is damaged");
    return inode->attributes;
  }

  Status ListDir(
      rafs::InodeId id, std::uint64_t cookie,
      const std::function<bool(const rafs::DirEntry&, std::uint64_t)>& fn) const override {
    DAVIT_TRY_ASSIGN(const Inode* dir, Get(id));
    if (!S_ISDIR(dir->attributes.mode)) {
      return Error(Code::kInvalidArgument, "not a directory", ENOTDIR);
    }
    std::uint64_t at = 0;
    const auto emit = [&](std::string_view name, std::uint64_t child) {
      if (at++ < cookie) return true;
      const std::uint32_t mode = inodes_.at(child).attributes.mode;
      return fn({{child}, name, mode & S_IFMT}, at);
    };
    if (cookie == 0 && !emit(".", id.value)) return {};
    at = 1;
    if (cookie <= 1 && !emit("..", dir->parent)) return {};
    at = 2;
    auto it = dir->children.begin();
    if (cookie > 2) {
      const std::uint64_t skip = std::min<std::uint64_t>(cookie - 2, dir->children.size());
      std::advance(it, static_cast<std::ptrdiff_t>(skip));
      at = 2 + skip;
    }
    for (; it != dir->children.end(); ++it) {
      if (!emit(it->first, it->second)) break;
    }
    return {};
  }

  Result<std::string> ReadLink(rafs::InodeId id) const override {
    DAVIT_TRY_ASSIGN(const Inode* inode, Get(id));
    if (!S_ISLNK(inode->attributes.mode)) {
      return Error(Code::kInvalidArgument, "not a link", EINVAL);
    }
    return inode->target;
  }

  Status ListXattrs(rafs::InodeId id,
                    const std::function<void(std::string_view, Bytes)>& fn) const override {
    DAVIT_TRY_ASSIGN(const Inode* inode, Get(id));
    for (const auto& [name, value] : inode->xattrs) fn(name, AsBytes(value));
    return {};
  }

  Result<std::string> GetXattr(rafs::InodeId id, std::string_view name) const override {
    DAVIT_TRY_ASSIGN(const Inode* inode, Get(id));
    for (const auto& [key, value] : inode->xattrs) {
      if (key == name) return value;
    }
    return Error(Code::kNotFound, "no such attribute");
  }

  Status Extents(rafs::InodeId id, std::uint64_t offset, std::uint64_t length,
                 std::vector<rafs::Extent>& out) const override {
    DAVIT_TRY_ASSIGN(const Inode* inode, Get(id));
    if (inode->damaged) return Error(Code::kDataLoss, "the inode is damaged");
    if (S_ISDIR(inode->attributes.mode)) {
      return Error(Code::kInvalidArgument, "is a directory", EISDIR);
    }
    if (offset >= inode->attributes.size) return {};
    rafs::Extent extent{.file_offset = offset,
                        .length = std::min(length, inode->attributes.size - offset),
                        .blob = 0,
                        .blob_offset = inode->blob_offset + offset,
                        .chunk = 0};
    if (inode->hole) {
      extent.blob.reset();
      extent.blob_offset = 0;
    }
    out.push_back(extent);
    return {};
  }

  Result<std::shared_ptr<const storage::ChunkDigests>> Digests(std::uint32_t) const override {
    return Error(Code::kUnsupported, "a fake image has no digests");
  }
  std::vector<rafs::InodeId> PrefetchList() const override { return {}; }

 private:
  Result<const Inode*> Get(rafs::InodeId id) const {
    const auto found = inodes_.find(id.value);
    if (found == inodes_.end()) return Error(Code::kDataLoss, "no such inode");
    return &found->second;
  }

  const Inodes inodes_;
  const std::string bootstrap_ = std::string(256 * inodes_.size(), '\0');
  const std::uint64_t root_;
  rafs::ImageInfo info_;
  std::vector<rafs::BlobRecord> blobs_;
};

}  // namespace

struct FakeImage::State {
  Inodes inodes;
  std::uint64_t root = 0;
  std::uint64_t next = 0;
  std::string content;
  bool has_xattrs = false;
  bool has_owners = true;
  std::shared_ptr<FakeBlob> blob;
  std::atomic<int> opens{0};
  Mutex mutex;
  std::optional<Error> open_error DAVIT_GUARDED_BY(mutex);

  Inode& New(std::uint32_t mode) {
    if (inodes.contains(next)) std::abort();
    Inode& inode = inodes[next];
    inode.attributes.id = {next};
    inode.attributes.mode = mode;
    inode.attributes.nlink = S_ISDIR(mode) ? 2 : 1;
    inode.attributes.mtime = 1'600'000'000;
    inode.attributes.mtime_nsec = 123'456'789;
    ++next;
    return inode;
  }

  std::uint64_t Find(const std::string& path) {
    std::uint64_t at = root;
    std::size_t begin = 0;
    while (begin < path.size()) {
      const std::size_t end = std::min(path.find('/', begin), path.size());
      if (end > begin) at = inodes.at(at).children.at(path.substr(begin, end - begin));
      begin = end + 1;
    }
    return at;
  }

  // The directory of a path, made when missing, and the last name.
  std::pair<std::uint64_t, std::string> Parent(const std::string& path) {
    std::uint64_t at = root;
    std::size_t begin = 0;
    for (std::size_t end = path.find('/'); end != std::string::npos; end = path.find('/', begin)) {
      const std::string name = path.substr(begin, end - begin);
      const auto found = inodes.at(at).children.find(name);
      at = found != inodes.at(at).children.end() ? found->second : Attach(at, name, S_IFDIR | 0755);
      begin = end + 1;
    }
    return {at, path.substr(begin)};
  }

  std::uint64_t Attach(std::uint64_t parent, const std::string& name, std::uint32_t mode) {
    Inode& inode = New(mode);
    const std::uint64_t id = inode.attributes.id.value;
    inode.parent = parent;
    inodes.at(parent).children[name] = id;
    if (S_ISDIR(mode)) ++inodes.at(parent).attributes.nlink;
    return id;
  }

  std::uint64_t Add(const std::string& path, std::uint32_t mode) {
    const auto [parent, name] = Parent(path);
    return Attach(parent, name, mode);
  }
};

FakeImage::FakeImage(std::uint64_t first_inode) : state_(std::make_shared<State>()) {
  state_->next = first_inode;
  state_->root = first_inode;
  state_->New(S_IFDIR | 0755).parent = first_inode;
}
FakeImage::~FakeImage() = default;

std::uint64_t FakeImage::Dir(const std::string& path, std::uint32_t permissions) {
  return state_->Add(path, S_IFDIR | permissions);
}

std::uint64_t FakeImage::File(const std::string& path, const std::string& content,
                              std::uint32_t permissions) {
  const std::uint64_t id = state_->Add(path, S_IFREG | permissions);
  Inode& inode = state_->inodes.at(id);
  inode.attributes.size = content.size();
  state_->content.resize(AlignUp(state_->content.size(), 4096));
  inode.blob_offset = state_->content.size();
  state_->content += content;
  return id;
}

std::uint64_t FakeImage::Extent(const std::string& path, std::uint64_t offset, std::uint64_t size,
                                bool hole) {
  const std::uint64_t id = state_->Add(path, S_IFREG | 0644);
  Inode& inode = state_->inodes.at(id);
  inode.attributes.size = size;
  inode.blob_offset = offset;
  inode.hole = hole;
  return id;
}

std::uint64_t FakeImage::Symlink(const std::string& path, const std::string& target) {
  const std::uint64_t id = state_->Add(path, S_IFLNK | 0777);
  state_->inodes.at(id).target = target;
  state_->inodes.at(id).attributes.size = target.size();
  return id;
}

std::uint64_t FakeImage::Node(const std::string& path, std::uint32_t mode, std::uint32_t rdev) {
  const std::uint64_t id = state_->Add(path, mode);
  state_->inodes.at(id).attributes.rdev = rdev;
  return id;
}

void FakeImage::HardLink(const std::string& path, const std::string& existing) {
  const std::uint64_t id = state_->Find(existing);
  const auto [parent, name] = state_->Parent(path);
  state_->inodes.at(parent).children[name] = id;
  ++state_->inodes.at(id).attributes.nlink;
}

void FakeImage::Xattr(const std::string& path, const std::string& name, const std::string& value) {
  state_->inodes.at(state_->Find(path)).xattrs.emplace_back(name, value);
  state_->has_xattrs = true;
}

void FakeImage::Owner(const std::string& path, std::uint32_t uid, std::uint32_t gid) {
  auto& attributes = state_->inodes.at(state_->Find(path)).attributes;
  attributes.uid = uid;
  attributes.gid = gid;
}

void FakeImage::HasOwners(bool has_owners) { state_->has_owners = has_owners; }

void FakeImage::NextInode(std::uint64_t number) { state_->next = number; }

void FakeImage::Damage(const std::string& path) {
  state_->inodes.at(state_->Find(path)).damaged = true;
}

void FakeImage::UseBlob(std::shared_ptr<FakeBlob> blob) { state_->blob = std::move(blob); }

std::unique_ptr<rafs::Metadata> FakeImage::TakeMetadata() {
  if (state_->blob == nullptr) {
    state_->content.resize(AlignUp(state_->content.size(), 4096));
    state_->blob = std::make_shared<FakeBlob>(state_->content);
  }
  return std::make_unique<FakeMetadata>(std::move(state_->inodes), state_->root, state_->has_xattrs,
                                        state_->has_owners, state_->blob->size());
}

std::shared_ptr<rafs::Filesystem> FakeImage::TakeFilesystem() {
  auto opener = [state = state_](std::uint32_t) -> Result<std::shared_ptr<storage::CachedBlob>> {
    ++state->opens;
    const MutexLock lock(state->mutex);
    if (state->open_error) return *state->open_error;
    return std::shared_ptr<storage::CachedBlob>(state->blob);
  };
  auto metadata = TakeMetadata();
  return std::make_shared<rafs::Filesystem>(std::move(metadata), std::move(opener));
}

FakeBlob& FakeImage::blob() { return *state_->blob; }
int FakeImage::opens() const { return state_->opens.load(); }

void FakeImage::FailOpens(std::optional<Error> error) {
  const MutexLock lock(state_->mutex);
  state_->open_error = std::move(error);
}

}  // namespace davit::testing
