#pragma once
// A node with fakes below it, and short ways to publish.

#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "common/base/fd.h"
#include "csi/core/node_ops.h"
#include "csi/core/volume_spec.h"
#include "tests/support/csi_fakes/fake_node.h"

namespace davit::csi {

inline constexpr const char* kImage = "registry.test/team/model:v1";

inline PublishRequest RequestFor(const std::string& volume, const std::string& target,
                                 AccessMode mode = AccessMode::kSingleNodeMultiWriter) {
  PublishRequest request;
  request.volume_id = volume;
  request.target_path = target;
  request.attributes = {{"image", kImage}};
  request.capability.present = true;
  request.capability.mode = mode;
  return request;
}

/// In memory where there is such a place: every change of the journal waits for the disk.
inline TempDir FastTempDir() {
  const bool memory = ::access("/dev/shm", W_OK) == 0;
  return *TempDir::Create("davit-csi", memory ? "/dev/shm" : "");
}

class NodeTest : public ::testing::Test {
 protected:
  NodeTest()
      : state_(FastTempDir()),
        mounter_(std::make_shared<test::FakeMounter>(table_, state_.path())),
        daemon_(table_) {
    Restart();
  }

  void Restart() {
    node_.reset();
    auto made =
        NodeOps::Create({.node_id = "node-1", .state_dir = state_.path()}, daemon_, mounter_);
    EXPECT_TRUE(made.ok()) << made.error().ToString();
    node_ = *std::move(made);
  }

  Status Publish(const PublishRequest& request) { return node_->Publish(Context{}, request); }
  Status Publish(const std::string& volume, const std::string& target) {
    return Publish(RequestFor(volume, target));
  }
  Status Unpublish(const std::string& volume, const std::string& target) {
    return node_->Unpublish(Context{}, volume, target);
  }
  Status Recover() { return node_->Recover(Context{}); }

  static std::string IdOf(const std::string& volume) {
    return MountIdOf(volume, VolumeSpec{.image = kImage});
  }
  std::string MountPath(const std::string& id) const { return state_.path() + "/mounts/" + id; }
  bool Shows(const std::string& target, const std::string& id) const {
    const auto there = table_.Top(target);
    const auto source = table_.Top(MountPath(id));
    return there && source && there->device == source->device;
  }
  std::size_t JournalFiles() const { return ListDirectory(state_.path() + "/journal")->size(); }
  bool HasDirectory(const std::string& path) const {
    MutexLock lock(table_.mutex);
    return table_.directories.contains(path);
  }
  void MakeDirectory(const std::string& path) {
    MutexLock lock(table_.mutex);
    table_.directories.insert(path);
  }
  void RemoveDirectory(const std::string& path) {
    MutexLock lock(table_.mutex);
    table_.directories.erase(path);
  }

  TempDir state_;
  test::MountTable table_;
  std::shared_ptr<test::FakeMounter> mounter_;
  test::FakeDaemon daemon_;
  std::unique_ptr<NodeOps> node_;
};

/// "code: text" for messages of failed expectations.
inline std::string Text(const Status& status) {
  return status.ok()
             ? "ok"
             : std::string(CodeName(status.error().code())) + ": " + status.error().ToString();
}

#define EXPECT_CODE(expression, expected)                           \
  do {                                                              \
    const ::davit::Status status_ = (expression);                   \
    ASSERT_FALSE(status_.ok()) << #expression;                      \
    EXPECT_EQ(status_.error().code(), (expected)) << Text(status_); \
  } while (false)

}  // namespace davit::csi
