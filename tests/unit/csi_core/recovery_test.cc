// What a restarted driver does with what it finds.
#include <gtest/gtest.h>

#include "csi/core/journal.h"
#include "tests/unit/csi_core/node_fixture.h"

namespace davit::csi {
namespace {

class Recovery : public NodeTest {};

TEST_F(Recovery, NothingToDoChangesNothing) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  Restart();
  ASSERT_TRUE(Recover().ok());
  EXPECT_EQ(mounter_->binds, 1);
  EXPECT_EQ(daemon_.requests().size(), 1U);
  EXPECT_TRUE(Unpublish("v1", "/pods/a").ok());
  EXPECT_TRUE(table_.List().empty());
}

TEST_F(Recovery, PublishedVolumesComeBackAfterADaemonThatDied) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  ASSERT_TRUE(Publish("v1", "/pods/b").ok());
  ASSERT_TRUE(Publish("v2", "/pods/c").ok());
  daemon_.Die();
  Restart();
  EXPECT_CODE(Recover(), Code::kUnavailable);
  daemon_.ComeBack();
  ASSERT_TRUE(Recover().ok());
  EXPECT_TRUE(Shows("/pods/a", IdOf("v1")));
  EXPECT_TRUE(Shows("/pods/b", IdOf("v1")));
  EXPECT_TRUE(Shows("/pods/c", IdOf("v2")));
  EXPECT_EQ(table_.List().size(), 5U);  // nothing stacked on anything
}

TEST_F(Recovery, ABindThatIsGoneComesBack) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  table_.RemoveTop("/pods/a");
  ASSERT_TRUE(Recover().ok());
  EXPECT_TRUE(Shows("/pods/a", IdOf("v1")));
}

TEST_F(Recovery, OrphansBelowTheOwnDirectoryGoOthersStay) {
  const std::string id = "csi-00000000000000000000000000000000";
  daemon_.AddForeign(id, MountPath(id));
  ASSERT_TRUE(MakeDirectories(MountPath(id)).ok());
  daemon_.AddForeign("csi-elsewhere", "/somewhere/csi-elsewhere");  // of another driver
  daemon_.AddForeign("mine", "/home/me/mnt");
  const std::string left = MountPath("csi-11111111111111111111111111111111");
  ASSERT_TRUE(MakeDirectories(left).ok());
  ASSERT_TRUE(MakeDirectories(MountPath("lost+found")).ok());
  ASSERT_TRUE(Recover().ok());
  EXPECT_FALSE(daemon_.Knows(id));
  EXPECT_TRUE(daemon_.Knows("csi-elsewhere"));
  EXPECT_TRUE(daemon_.Knows("mine"));
  EXPECT_EQ(*ListDirectory(state_.path() + "/mounts"), std::vector<std::string>{"lost+found"});
}

TEST_F(Recovery, UnfinishedPublishesAreLeftToTheKubelet) {
  daemon_.on_mount = [](const Context&, const daemon::api::MountRequest&) -> Status {
    return Error(Code::kUnavailable, "registry away");
  };
  EXPECT_CODE(Publish("v1", "/pods/a"), Code::kUnavailable);
  daemon_.on_mount = nullptr;
  Restart();
  ASSERT_TRUE(Recover().ok());
  EXPECT_FALSE(table_.Top("/pods/a"));
  EXPECT_EQ(JournalFiles(), 1U);
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
}

TEST_F(Recovery, AVolumeWhosePodIsGoneIsDropped) {
  MakeDirectory("/pods-of-old");
  ASSERT_TRUE(Publish("v1", "/pods-of-old/a").ok());
  table_.RemoveTop("/pods-of-old/a");
  RemoveDirectory("/pods-of-old");
  Restart();
  ASSERT_TRUE(Recover().ok());
  EXPECT_EQ(JournalFiles(), 0U);
  EXPECT_FALSE(daemon_.Knows(IdOf("v1")));
}

TEST_F(Recovery, OneBrokenVolumeDoesNotStopTheOthers) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  ASSERT_TRUE(Publish("v2", "/pods/b").ok());
  daemon_.Die();
  daemon_.ComeBack();
  daemon_.on_mount = [](const Context&, const daemon::api::MountRequest& request) -> Status {
    if (request.id == IdOf("v1")) return Error(Code::kUnauthenticated, "401");
    return {};
  };
  const Status status = Recover();
  EXPECT_CODE(status, Code::kUnavailable);
  EXPECT_NE(status.error().message().find("401"), std::string::npos);
  EXPECT_TRUE(Shows("/pods/b", IdOf("v2")));
  EXPECT_EQ(JournalFiles(), 2U);
  // The kubelet's next publish brings the secret.
  daemon_.on_mount = nullptr;
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  EXPECT_TRUE(Shows("/pods/a", IdOf("v1")));
}

// Every step of a publish may be the last one before a crash: what is on disk then is one of these
// states, and from each of them both a new publish and an unpublish must get to a clean end.
TEST_F(Recovery, EveryHalfDoneStateEndsCleanly) {
  for (int state = 0; state < 4; ++state) {
    for (const bool publish : {true, false}) {
      for (const bool recover : {true, false}) {
        const std::string volume =
            "v" + std::to_string(state) + (publish ? "p" : "u") + (recover ? "r" : "n");
        const std::string target = "/pods/" + volume;
        node_.reset();
        {
          auto journal = Journal::Open(state_.path() + "/journal");
          ASSERT_TRUE(journal.ok());
          JournalEntry entry{.volume_id = volume, .target = target};
          entry.args.spec.image = kImage;
          entry.args.mode = AccessMode::kSingleNodeMultiWriter;
          entry.mount_id = IdOf(volume);
          entry.published = state == 3;
          ASSERT_TRUE((*journal)->Put(entry).ok());
        }
        if (state >= 1) {
          const std::string at = MountPath(IdOf(volume));
          ASSERT_TRUE(MakeDirectories(at).ok());
          daemon::api::MountRequest request{.id = IdOf(volume), .source = kImage, .mountpoint = at};
          ASSERT_TRUE(daemon_.Mount(Context{}, request).ok());
        }
        if (state >= 2) {
          ASSERT_TRUE(mounter_->BindReadOnly(MountPath(IdOf(volume)), target, {}).ok());
        }
        Restart();
        if (recover) {
          ASSERT_TRUE(Recover().ok());
        }
        if (publish) {
          ASSERT_TRUE(Publish(volume, target).ok()) << volume;
          EXPECT_TRUE(Shows(target, IdOf(volume))) << volume;
        }
        ASSERT_TRUE(Unpublish(volume, target).ok()) << volume;
        EXPECT_TRUE(table_.List().empty()) << volume;
        EXPECT_FALSE(HasDirectory(target)) << volume;
        EXPECT_EQ(JournalFiles(), 0U) << volume;
        EXPECT_FALSE(daemon_.Knows(IdOf(volume))) << volume;
      }
    }
  }
}

}  // namespace
}  // namespace davit::csi
