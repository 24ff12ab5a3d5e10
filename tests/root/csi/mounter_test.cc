// The kernel's side of the node: bind mounts, detaching, targets. Needs CAP_SYS_ADMIN.
#include "csi/core/mounter.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "common/base/fd.h"

namespace davit::csi {
namespace {

// Each test has its own mount namespace, so nothing can be left behind on the machine.
class MounterTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (::unshare(CLONE_NEWNS) != 0) GTEST_SKIP() << "needs root: " << std::strerror(errno);
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(::mkdir(Path("image").c_str(), 0755), 0);
    ASSERT_EQ(::mount("davit", Path("image").c_str(), "tmpfs", 0, "size=1m"), 0);
    ASSERT_TRUE(WriteFileAtomic(Path("image/file"), AsBytes("content"), 0755).ok());
    ASSERT_EQ(::mkdir(Path("pod").c_str(), 0755), 0);
  }
  void TearDown() override {
    const auto mounts = *mounter_->List();
    for (const auto& mount : mounts) {
      if (mount.path.starts_with(dir_.path())) ::umount2(mount.path.c_str(), MNT_DETACH);
    }
  }
  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }
  std::optional<MountEntry> Top(const std::string& path) const {
    const auto mounts = *mounter_->List();
    const MountEntry* found = FindMount(mounts, path);
    if (found == nullptr) return std::nullopt;
    return *found;
  }

  TempDir dir_ = *TempDir::Create("davit-mounter");
  std::shared_ptr<Mounter> mounter_ = Mounter::Create(GetParam());
};

TEST_P(MounterTest, BindIsReadOnlyNosuidNodev) {
  const std::string target = Path("pod/target");
  ASSERT_TRUE(mounter_->BindReadOnly(Path("image"), target, {}).ok());
  EXPECT_EQ(*ReadFile(target + "/file"), "content");
  EXPECT_EQ(OpenFile(target + "/new", O_CREAT | O_WRONLY).error().sys_errno(), EROFS);
  EXPECT_EQ(OpenFile(target + "/file", O_WRONLY).error().sys_errno(), EROFS);
  // The image's own mount keeps its options.
  EXPECT_TRUE(OpenFile(Path("image/new"), O_CREAT | O_WRONLY).ok());
  const auto top = Top(target);
  ASSERT_TRUE(top);
  for (const char* option : {"ro", "nosuid", "nodev"}) {
    EXPECT_NE(("," + top->options + ",").find(std::string(",") + option + ","), std::string::npos)
        << top->options;
  }
  EXPECT_EQ(top->options.find("noexec"), std::string::npos);
  EXPECT_EQ(top->device, Top(Path("image"))->device);
  struct stat st{};
  ASSERT_EQ(::stat(Path("pod").c_str(), &st), 0);
}

TEST_P(MounterTest, OptionsAreTakenOver) {
  ASSERT_TRUE(
      mounter_->BindReadOnly(Path("image"), Path("pod/t"), {.noexec = true, .noatime = true}).ok());
  EXPECT_NE(Top(Path("pod/t"))->options.find("noexec"), std::string::npos);
  EXPECT_NE(Top(Path("pod/t"))->options.find("noatime"), std::string::npos);
  EXPECT_NE(::access(Path("pod/t/file").c_str(), X_OK), 0);
}

TEST_P(MounterTest, DetachTakesTheWholeStackAndRemoveTheDirectory) {
  const std::string target = Path("pod/target");
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(mounter_->BindReadOnly(Path("image"), target, {}).ok());
  }
  ASSERT_TRUE(mounter_->Detach(target).ok());
  EXPECT_FALSE(Top(target));
  ASSERT_TRUE(mounter_->RemoveTarget(target).ok());
  EXPECT_NE(::access(target.c_str(), F_OK), 0);
  // All of it again is success: nothing is there.
  EXPECT_TRUE(mounter_->Detach(target).ok());
  EXPECT_TRUE(mounter_->RemoveTarget(target).ok());
  EXPECT_TRUE(mounter_->Detach(Path("missing/target")).ok());
  EXPECT_TRUE(mounter_->RemoveTarget(Path("missing/target")).ok());
  EXPECT_TRUE(Top(Path("image")));
}

TEST_P(MounterTest, DetachWorksWhileFilesAreOpen) {
  const std::string target = Path("pod/target");
  ASSERT_TRUE(mounter_->BindReadOnly(Path("image"), target, {}).ok());
  const auto file = OpenFile(target + "/file", O_RDONLY);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(mounter_->Detach(target).ok());
  EXPECT_TRUE(mounter_->RemoveTarget(target).ok());
  std::array<std::byte, 7> bytes{};
  EXPECT_EQ(*PreadFull(file->get(), bytes, 0), 7U);
}

TEST_P(MounterTest, ASymlinkAsTargetIsNotFollowed) {
  ASSERT_EQ(::mkdir(Path("elsewhere").c_str(), 0755), 0);
  ASSERT_EQ(::symlink(Path("elsewhere").c_str(), Path("pod/link").c_str()), 0);
  const Status status = mounter_->BindReadOnly(Path("image"), Path("pod/link"), {});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code(), Code::kFailedPrecondition) << status.error().ToString();
  EXPECT_FALSE(Top(Path("elsewhere")));
  // Nor is what it points to unmounted or removed.
  ASSERT_TRUE(mounter_->BindReadOnly(Path("image"), Path("elsewhere"), {}).ok());
  static_cast<void>(mounter_->Detach(Path("pod/link")));
  static_cast<void>(mounter_->RemoveTarget(Path("pod/link")));
  EXPECT_TRUE(Top(Path("elsewhere")));
}

TEST_P(MounterTest, AFileAsTargetIsRefused) {
  ASSERT_TRUE(WriteFileAtomic(Path("pod/file"), AsBytes("x")).ok());
  EXPECT_EQ(mounter_->BindReadOnly(Path("image"), Path("pod/file"), {}).error().code(),
            Code::kFailedPrecondition);
  EXPECT_EQ(mounter_->BindReadOnly(Path("image"), Path("missing/t"), {}).error().code(),
            Code::kNotFound);
  EXPECT_FALSE(mounter_->RemoveTarget(Path("pod/file")).ok());
  EXPECT_TRUE(ReadFile(Path("pod/file")).ok());
}

TEST_P(MounterTest, ADirectoryWithFilesIsNotRemoved) {
  ASSERT_EQ(::mkdir(Path("pod/t").c_str(), 0755), 0);
  ASSERT_TRUE(WriteFileAtomic(Path("pod/t/x"), AsBytes("x")).ok());
  EXPECT_EQ(mounter_->RemoveTarget(Path("pod/t")).error().code(), Code::kFailedPrecondition);
  EXPECT_TRUE(ReadFile(Path("pod/t/x")).ok());
}

TEST_P(MounterTest, RealPathKnowsSymlinksAboveTheTarget) {
  ASSERT_EQ(::symlink(Path("pod").c_str(), Path("kubelet").c_str()), 0);
  EXPECT_EQ(*mounter_->RealPath(Path("kubelet/t")), Path("pod/t"));
  EXPECT_EQ(*mounter_->RealPath(Path("pod/t")), Path("pod/t"));
  EXPECT_EQ(*mounter_->RealPath("/t"), "/t");
  EXPECT_EQ(mounter_->RealPath(Path("missing/t")).error().code(), Code::kNotFound);
  // And a target reached through one is the mount that mountinfo shows.
  ASSERT_TRUE(mounter_->BindReadOnly(Path("image"), Path("kubelet/t"), {}).ok());
  EXPECT_TRUE(Top(Path("pod/t")));
  ASSERT_TRUE(mounter_->Detach(Path("kubelet/t")).ok());
  EXPECT_FALSE(Top(Path("pod/t")));
}

TEST_P(MounterTest, StrangeNames) {
  for (const std::string name : {"a b", "tab\there", "back\\slash", "new\nline", "\xff\xfe", " "}) {
    const std::string target = Path("pod/") + name;
    ASSERT_TRUE(mounter_->BindReadOnly(Path("image"), target, {}).ok()) << name;
    EXPECT_TRUE(Top(target)) << name;
    ASSERT_TRUE(mounter_->Detach(target).ok()) << name;
    EXPECT_FALSE(Top(target)) << name;
    ASSERT_TRUE(mounter_->RemoveTarget(target).ok()) << name;
  }
}

TEST_P(MounterTest, UsageIsThatOfTheFileSystem) {
  const auto usage = mounter_->Usage(Path("image"));
  ASSERT_TRUE(usage.ok());
  EXPECT_EQ(usage->total_bytes, 1U << 20);
  EXPECT_GE(usage->used_inodes, 2U);
  EXPECT_FALSE(mounter_->Usage(Path("missing")).ok());
}

TEST_P(MounterTest, NoDescriptorIsLeftOpen) {
  const auto count = [] { return ListDirectory("/proc/self/fd")->size(); };
  const auto before = count();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(mounter_->BindReadOnly(Path("image"), Path("pod/t"), {}).ok());
    ASSERT_TRUE(mounter_->RealPath(Path("pod/t")).ok());
    ASSERT_FALSE(mounter_->BindReadOnly(Path("nothing"), Path("pod/u"), {}).ok());
    ASSERT_TRUE(mounter_->Detach(Path("pod/t")).ok());
  }
  EXPECT_EQ(count(), before);
}

INSTANTIATE_TEST_SUITE_P(Api, MounterTest, ::testing::Values(true, false),
                         [](const auto& api) { return api.param ? "MountApi" : "Classic"; });

}  // namespace
}  // namespace davit::csi
