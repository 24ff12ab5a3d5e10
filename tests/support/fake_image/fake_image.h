#pragma once
// An image in memory: a Metadata and CachedBlobs whose bytes come, wait and fail on demand.

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/fd.h"
#include "common/base/sync.h"
#include "rafs/fs/filesystem.h"

namespace davit::testing {

/// A blob with a real data file (a memfd, or a file of the caller). Thread-safe.
class FakeBlob : public storage::CachedBlob {
 public:
  static constexpr std::uint64_t kChunk = 64U << 10;

  explicit FakeBlob(const std::string& content);
  /// The content is that of a file.
  FakeBlob(UniqueFd data, std::uint64_t size);

  const storage::BlobId& id() const override { return id_; }
  std::uint64_t size() const override { return size_; }
  Status Ensure(const Context& ctx, ByteRange range) override;
  Result<std::size_t> Read(const Context& ctx, std::uint64_t offset, MutableBytes out) override;
  bool IsReady(ByteRange range) const override;
  std::shared_ptr<void> PinReady(ByteRange range) override {
    return IsReady(range) ? std::make_shared<int>(0) : nullptr;  // nothing is ever evicted
  }
  int data_fd() const override { return data_.get(); }
  const std::string& data_path() const override { return path_; }
  storage::BlobProgress progress() const override { return {size_, size_, true}; }

  /// From now on nothing is local; readers wait until Release.
  void Withhold();
  /// Everything is local again; wakes readers.
  void Release();
  /// Ensure and Read of what is not local fail with this; nothing: they wait.
  void FailWith(std::optional<Error> error);
  /// Blocks until `count` readers wait; false after ten seconds.
  bool AwaitWaiting(int count);
  int waiting() const;
  std::uint64_t ensures() const { return ensures_.load(); }

 private:
  const storage::BlobId id_;
  const UniqueFd data_;
  const std::uint64_t size_;
  const std::string path_ = "(fake)";
  std::atomic<bool> local_{true};
  std::atomic<std::uint64_t> ensures_{0};
  mutable Mutex mutex_;
  CondVar changed_;
  int waiting_ DAVIT_GUARDED_BY(mutex_) = 0;
  std::optional<Error> error_ DAVIT_GUARDED_BY(mutex_);
};

/// Builds a tree; inode numbers are given in order of creation from `first_inode` on, the root
/// gets the first one.
class FakeImage {
 public:
  explicit FakeImage(std::uint64_t first_inode = 36);
  ~FakeImage();
  FakeImage(const FakeImage&) = delete;
  FakeImage& operator=(const FakeImage&) = delete;

  /// Paths are relative ("a/b"); parents are made as directories. The new inode's number.
  std::uint64_t Dir(const std::string& path, std::uint32_t permissions = 0755);
  std::uint64_t File(const std::string& path, const std::string& content,
                     std::uint32_t permissions = 0644);
  /// A file of `size` bytes from the blob's position `offset`; `hole`: it reads as zeros.
  std::uint64_t Extent(const std::string& path, std::uint64_t offset, std::uint64_t size,
                       bool hole = false);
  std::uint64_t Symlink(const std::string& path, const std::string& target);
  std::uint64_t Node(const std::string& path, std::uint32_t mode, std::uint32_t rdev);
  void HardLink(const std::string& path, const std::string& existing);
  void Xattr(const std::string& path, const std::string& name, const std::string& value);
  void Owner(const std::string& path, std::uint32_t uid, std::uint32_t gid);
  /// False: the image says that its inodes' owners mean nothing.
  void HasOwners(bool has_owners);
  /// The next inode gets this number.
  void NextInode(std::uint64_t number);
  /// Stat and Extents of the inode report damage.
  void Damage(const std::string& path);
  /// The blob is this one instead of one made of the files' content.
  void UseBlob(std::shared_ptr<FakeBlob> blob);

  /// The finished image; once. blob() is the only blob.
  std::unique_ptr<rafs::Metadata> TakeMetadata();
  std::shared_ptr<rafs::Filesystem> TakeFilesystem();
  FakeBlob& blob();
  /// How often the filesystem opened the blob, and an error that it gets instead.
  int opens() const;
  void FailOpens(std::optional<Error> error);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace davit::testing
