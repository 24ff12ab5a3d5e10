// Publishing and unpublishing: idempotency, codes, clean-up.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "tests/unit/csi_core/node_fixture.h"

namespace davit::csi {
namespace {

class Publishing : public NodeTest {};

TEST_F(Publishing, ShowsTheImageReadOnlyAtTheTarget) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  EXPECT_TRUE(Shows("/pods/a", IdOf("v1")));
  EXPECT_EQ(table_.Top("/pods/a")->options, "ro,nosuid,nodev");
  ASSERT_EQ(daemon_.requests().size(), 1U);
  const auto request = daemon_.requests()[0];
  EXPECT_EQ(request.source, kImage);
  EXPECT_EQ(request.mountpoint, MountPath(IdOf("v1")));
  EXPECT_TRUE(request.fill);
  EXPECT_EQ(JournalFiles(), 1U);
}

TEST_F(Publishing, TenTimesIsOnce) {
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  EXPECT_EQ(mounter_->binds, 1);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Unpublish("v1", "/pods/a").ok());
  EXPECT_TRUE(table_.List().empty());
}

TEST_F(Publishing, UnpublishLeavesNothingBehind) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  ASSERT_TRUE(Unpublish("v1", "/pods/a").ok());
  EXPECT_TRUE(table_.List().empty());
  EXPECT_FALSE(HasDirectory("/pods/a"));
  EXPECT_FALSE(daemon_.Knows(IdOf("v1")));
  EXPECT_EQ(JournalFiles(), 0U);
  EXPECT_TRUE(ListDirectory(state_.path() + "/mounts")->empty());
}

TEST_F(Publishing, OneMountOfTheImageForAllTargetsOfAVolume) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  ASSERT_TRUE(Publish("v1", "/pods/b").ok());
  ASSERT_TRUE(Publish("v2", "/pods/c").ok());
  EXPECT_EQ(daemon_.List(Context{})->size(), 2U);
  ASSERT_TRUE(Unpublish("v1", "/pods/a").ok());
  EXPECT_TRUE(Shows("/pods/b", IdOf("v1")));
  ASSERT_TRUE(Unpublish("v1", "/pods/b").ok());
  EXPECT_FALSE(daemon_.Knows(IdOf("v1")));
  EXPECT_TRUE(Shows("/pods/c", IdOf("v2")));
}

// The table of the specification: first call with `first`, second with `second`.
TEST_F(Publishing, MatrixOfTheSpecification) {
  struct Case {
    const char* what;
    AccessMode first, second;
    bool same_target, same_args;
    std::optional<Code> code;
  };
  constexpr auto kSNW = AccessMode::kSingleNodeWriter;
  constexpr auto kSNR = AccessMode::kSingleNodeReaderOnly;
  constexpr auto kSNSW = AccessMode::kSingleNodeSingleWriter;
  constexpr auto kSNMW = AccessMode::kSingleNodeMultiWriter;
  constexpr auto kMNR = AccessMode::kMultiNodeReaderOnly;
  constexpr auto kMNMW = AccessMode::kMultiNodeMultiWriter;
  constexpr auto kMNSW = AccessMode::kMultiNodeSingleWriter;
  const std::vector<Case> cases = {
      {"same", kSNW, kSNW, true, true, {}},
      {"same target, other args", kSNW, kSNW, true, false, Code::kAlreadyExists},
      {"same target, other mode", kSNW, kSNSW, true, true, Code::kAlreadyExists},
      {"same, shared", kMNR, kMNR, true, true, {}},
      {"shared, other args", kMNR, kMNR, true, false, Code::kAlreadyExists},
      {"SNW elsewhere", kSNW, kSNW, false, true, Code::kFailedPrecondition},
      {"SNR elsewhere", kSNR, kSNR, false, true, Code::kFailedPrecondition},
      {"SNSW elsewhere", kSNSW, kSNSW, false, true, Code::kFailedPrecondition},
      {"SNMW elsewhere", kSNMW, kSNMW, false, true, {}},
      {"MNR elsewhere", kMNR, kMNR, false, true, {}},
      {"MNSW elsewhere", kMNSW, kMNSW, false, true, {}},
      {"MNMW elsewhere", kMNMW, kMNMW, false, true, {}},
      {"MNMW elsewhere, other args", kMNMW, kMNMW, false, false, {}},
      {"one of both is single", kSNSW, kSNMW, false, true, Code::kFailedPrecondition},
      {"the other of both is single", kSNMW, kSNSW, false, true, Code::kFailedPrecondition},
  };
  int number = 0;
  for (const Case& c : cases) {
    const std::string volume = "v" + std::to_string(number++);
    const std::string target = "/pods/" + volume;
    ASSERT_TRUE(Publish(RequestFor(volume, target, c.first)).ok()) << c.what;
    const std::string other = c.same_target ? target : target + "-other";
    PublishRequest second = RequestFor(volume, other, c.second);
    if (!c.same_args) second.attributes["image"] = "registry.test/other:v2";
    const Status status = Publish(second);
    if (!c.code) {
      EXPECT_TRUE(status.ok()) << c.what << ": " << Text(status);
      EXPECT_TRUE(table_.Top(other)) << c.what;
    } else {
      ASSERT_FALSE(status.ok()) << c.what;
      EXPECT_EQ(status.error().code(), *c.code) << c.what;
      EXPECT_FALSE(status.error().hint().empty()) << c.what;
      // What was there before is still there.
      EXPECT_TRUE(Shows(target, IdOf(volume))) << c.what;
      EXPECT_EQ(table_.Top(other).has_value(), c.same_target) << c.what;
    }
  }
}

TEST_F(Publishing, SecretsAndPodDataAreNoParameters) {
  PublishRequest request = RequestFor("v1", "/pods/a");
  request.attributes["csi.storage.k8s.io/pod.name"] = "p";
  request.secrets[".dockerconfigjson"] = Secret(R"({"auths":{"r":{"auth":"dTpw"}}})");
  ASSERT_TRUE(Publish(request).ok());
  EXPECT_EQ(daemon_.requests()[0].registry_auth, request.secrets[".dockerconfigjson"]);
  request.attributes["csi.storage.k8s.io/pod.name"] = "q";
  request.secrets.clear();
  EXPECT_TRUE(Publish(request).ok());
}

TEST_F(Publishing, NoSecretReachesTheJournal) {
  PublishRequest request = RequestFor("v1", "/pods/a");
  request.attributes["csi.storage.k8s.io/serviceAccount.tokens"] = "token-hunter2";
  request.secrets[".dockerconfigjson"] =
      Secret(R"({"auths":{"r":{"auth":"aHVudGVyMjpodW50ZXIy","password":"hunter2"}}})");
  ASSERT_TRUE(Publish(request).ok());
  const std::string dir = state_.path() + "/journal/";
  const std::string text = *ReadFile(dir + ListDirectory(dir)->at(0));
  EXPECT_EQ(text.find("hunter2"), std::string::npos);
  EXPECT_EQ(text.find("aHVudGVyMjpodW50ZXIy"), std::string::npos);
}

TEST_F(Publishing, NoSecretReachesTheUser) {
  daemon_.on_mount = [](const Context&, const daemon::api::MountRequest&) -> Status {
    return Error(Code::kUnauthenticated, "401 for user:hunter2 (dTpodW50ZXIy)");
  };
  PublishRequest request = RequestFor("v1", "/pods/a");
  request.secrets[".dockerconfigjson"] =
      Secret(R"({"auths":{"r":{"auth":"dTpodW50ZXIy"}}})");  // u:hunter2
  const Status status = Publish(request);
  EXPECT_EQ(Text(status), "unauthenticated: 401 for user:<redacted> (<redacted>)");
}

TEST_F(Publishing, ArgumentsComeBeforeTheVolume) {
  PublishRequest request = RequestFor("fake-vol-id", "/pods/a");
  request.capability.present = false;
  EXPECT_CODE(Publish(request), Code::kInvalidArgument);
  EXPECT_CODE(Publish(RequestFor("", "/pods/a")), Code::kInvalidArgument);
  EXPECT_CODE(Publish(RequestFor("v", "")), Code::kInvalidArgument);
  EXPECT_CODE(Publish(RequestFor("v", "relative")), Code::kInvalidArgument);
  EXPECT_CODE(Publish(RequestFor("v", state_.path() + "/mounts/x")), Code::kInvalidArgument);
  EXPECT_CODE(Publish(RequestFor("v", state_.path())), Code::kInvalidArgument);
  EXPECT_CODE(Unpublish("", "/pods/a"), Code::kInvalidArgument);
  EXPECT_CODE(Unpublish("v", ""), Code::kInvalidArgument);
  EXPECT_TRUE(daemon_.requests().empty());
  EXPECT_EQ(JournalFiles(), 0U);
}

TEST_F(Publishing, ParentMustExist) {
  const Status status = Publish("v1", "/nowhere/a");
  EXPECT_CODE(status, Code::kFailedPrecondition);
  EXPECT_TRUE(daemon_.requests().empty());
  EXPECT_EQ(JournalFiles(), 0U);
}

TEST_F(Publishing, ATargetBelongsToOneVolume) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  EXPECT_CODE(Publish("v2", "/pods/a"), Code::kFailedPrecondition);
  EXPECT_CODE(Unpublish("v2", "/pods/a"), Code::kFailedPrecondition);
  EXPECT_TRUE(Shows("/pods/a", IdOf("v1")));
}

TEST_F(Publishing, ForeignMountsAreLeftAlone) {
  MakeDirectory("/pods/a");
  table_.Add({.path = "/pods/a", .fs_type = "ext4", .source = "/dev/sdb", .device = 7});
  EXPECT_CODE(Publish("v1", "/pods/a"), Code::kFailedPrecondition);
  EXPECT_CODE(Unpublish("v1", "/pods/a"), Code::kFailedPrecondition);
  EXPECT_EQ(table_.Top("/pods/a")->device, 7U);
  EXPECT_EQ(JournalFiles(), 0U);
}

TEST_F(Publishing, UnknownVolumeIsUnpublished) {
  EXPECT_TRUE(Unpublish("never", "/pods/a").ok());
  EXPECT_TRUE(Unpublish("never", "/nowhere/a").ok());
  // What a lost journal left behind goes away as well.
  MakeDirectory("/pods/old");
  table_.Add({.path = "/pods/old", .fs_type = "fuse.davit", .source = "davit", .device = 9});
  EXPECT_TRUE(Unpublish("lost", "/pods/old").ok());
  EXPECT_FALSE(table_.Top("/pods/old"));
  EXPECT_FALSE(HasDirectory("/pods/old"));
}

// After a final code kubelet forgets the volume, after another one it comes back.
TEST_F(Publishing, FinalErrorsLeaveNothingBehindOthersKeepTheJournal) {
  struct Case {
    Code code;
    bool final;
  };
  for (const Case& c : std::vector<Case>{{Code::kNotFound, true},
                                         {Code::kInvalidArgument, true},
                                         {Code::kUnauthenticated, true},
                                         {Code::kPermissionDenied, true},
                                         {Code::kDataLoss, true},
                                         {Code::kUnsupported, true},
                                         {Code::kInternal, true},
                                         {Code::kUnavailable, false},
                                         {Code::kResourceExhausted, false},
                                         {Code::kDeadlineExceeded, false},
                                         {Code::kAborted, false}}) {
    daemon_.on_mount = [&](const Context&, const daemon::api::MountRequest&) -> Status {
      return Error(c.code, "reason").WithHint("next step");
    };
    const Status status = Publish("v1", "/pods/a");
    EXPECT_CODE(status, c.code);
    EXPECT_EQ(status.error().ToString(), "reason (next step)");
    EXPECT_EQ(JournalFiles(), c.final ? 0U : 1U) << CodeName(c.code);
    EXPECT_EQ(ListDirectory(state_.path() + "/mounts")->empty(), c.final) << CodeName(c.code);
    daemon_.on_mount = nullptr;
    ASSERT_TRUE(Publish("v1", "/pods/a").ok());
    ASSERT_TRUE(Unpublish("v1", "/pods/a").ok());
  }
}

TEST_F(Publishing, AnUnfinishedPublishMayChangeItsParameters) {
  daemon_.on_mount = [](const Context&, const daemon::api::MountRequest&) -> Status {
    return Error(Code::kUnavailable, "registry away");
  };
  PublishRequest wrong = RequestFor("v1", "/pods/a");
  wrong.attributes["image"] = "registry.test/wrong:v1";
  EXPECT_CODE(Publish(wrong), Code::kUnavailable);
  daemon_.on_mount = nullptr;
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  EXPECT_EQ(JournalFiles(), 1U);
  EXPECT_EQ(ListDirectory(state_.path() + "/mounts")->size(), 1U);
  ASSERT_TRUE(Unpublish("v1", "/pods/a").ok());
}

TEST_F(Publishing, AFailedBindIsUndone) {
  mounter_->on_bind = [](const std::string&) -> Status { return Error(Code::kInternal, "EIO"); };
  EXPECT_CODE(Publish("v1", "/pods/a"), Code::kInternal);
  EXPECT_FALSE(daemon_.Knows(IdOf("v1")));
  EXPECT_EQ(JournalFiles(), 0U);
}

TEST_F(Publishing, AMountOfAnotherNamespaceIsExplained) {
  daemon_.mounts_visible = false;
  const Status status = Publish("v1", "/pods/a");
  EXPECT_CODE(status, Code::kFailedPrecondition);
  EXPECT_NE(status.error().hint().find("mountPropagation: Bidirectional"), std::string::npos);
}

TEST_F(Publishing, ADeadMountAtTheTargetIsReplaced) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  const auto dead = table_.Top("/pods/a")->device;
  daemon_.Die();
  daemon_.ComeBack();
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  EXPECT_TRUE(Shows("/pods/a", IdOf("v1")));
  EXPECT_NE(table_.Top("/pods/a")->device, dead);
  // Nothing is stacked.
  ASSERT_TRUE(Unpublish("v1", "/pods/a").ok());
  EXPECT_TRUE(table_.List().empty());
}

TEST_F(Publishing, UnpublishWorksWithoutTheDaemon) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  daemon_.away = true;
  ASSERT_TRUE(Unpublish("v1", "/pods/a").ok());
  EXPECT_FALSE(table_.Top("/pods/a"));
  EXPECT_FALSE(HasDirectory("/pods/a"));
  EXPECT_EQ(JournalFiles(), 0U);
  // The image's mount goes when the daemon is back.
  daemon_.away = false;
  ASSERT_TRUE(Recover().ok());
  EXPECT_FALSE(daemon_.Knows(IdOf("v1")));
}

TEST_F(Publishing, AFailedUnmountKeepsTheJournal) {
  ASSERT_TRUE(Publish("v1", "/pods/a").ok());
  mounter_->on_detach = [](const std::string&) -> Status {
    return Error(Code::kInternal, "umount");
  };
  EXPECT_CODE(Unpublish("v1", "/pods/a"), Code::kInternal);
  EXPECT_EQ(JournalFiles(), 1U);
  mounter_->on_detach = nullptr;
  EXPECT_TRUE(Unpublish("v1", "/pods/a").ok());
}

TEST_F(Publishing, OneProcessPerStateDirectory) {
  const auto second =
      NodeOps::Create({.node_id = "n", .state_dir = state_.path()}, daemon_, mounter_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code(), Code::kFailedPrecondition);
  EXPECT_FALSE(NodeOps::Create({.node_id = "", .state_dir = "/x"}, daemon_, mounter_).ok());
  EXPECT_FALSE(NodeOps::Create({.node_id = "n", .state_dir = "x"}, daemon_, mounter_).ok());
}

}  // namespace
}  // namespace davit::csi
