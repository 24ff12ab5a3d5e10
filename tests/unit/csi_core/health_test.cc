// Statistics and health of published volumes.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/unit/csi_core/node_fixture.h"

namespace davit::csi {
namespace {

using std::chrono::milliseconds;

class HealthTest : public NodeTest {
 protected:
  HealthTest() { EXPECT_TRUE(Publish("v1", "/pods/a").ok()); }
  VolumeHealth Ask() {
    auto health = node_->Health(Context{}, "v1", "/pods/a");
    EXPECT_TRUE(health.ok());
    return *std::move(health);
  }
  void ExpectBad(const std::string& reason, const std::string& text,
                 VolumeHealth::Status status = VolumeHealth::Status::kInaccessible) {
    const VolumeHealth health = Ask();
    EXPECT_EQ(health.status, status);
    EXPECT_EQ(health.reason, reason) << health.message;
    EXPECT_NE(health.message.find(text), std::string::npos) << health.message;
  }
};

TEST_F(HealthTest, ImageIsFullAndItsInodesAreCounted) {
  const auto stats = node_->Stats(Context{}, "v1", "/pods/a/");
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->total_bytes, 1'000'000U);
  EXPECT_EQ(stats->used_bytes, 1'000'000U);
  EXPECT_TRUE(stats->inodes_known);
  EXPECT_EQ(stats->total_inodes, 38000U);
  EXPECT_FALSE(stats->abnormal);
  EXPECT_EQ(Ask().status, VolumeHealth::Status::kHealthy);
}

TEST_F(HealthTest, CodesOfWrongQuestions) {
  const auto code = [&](const std::string& volume, const std::string& path) {
    const auto stats = node_->Stats(Context{}, volume, path);
    return stats.ok() ? std::string("ok") : std::string(CodeName(stats.error().code()));
  };
  EXPECT_EQ(code("", "/pods/a"), "invalid_argument");
  EXPECT_EQ(code("v1", ""), "invalid_argument");
  EXPECT_EQ(code("fake-vol-id", "some/path"), "not_found");
  EXPECT_EQ(code("v1", "some/path"), "not_found");
  EXPECT_EQ(code("v1", "/pods/b"), "not_found");
  EXPECT_TRUE(node_->Health(Context{}, "v1", "").ok());
  EXPECT_FALSE(node_->Health(Context{}, "fake-vol-id", "").ok());
}

TEST_F(HealthTest, DaemonAway) {
  daemon_.away = true;
  ExpectBad("DaemonUnavailable", "Connection refused");
  const auto stats = node_->Stats(Context{}, "v1", "/pods/a");
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.error().code(), Code::kUnavailable);
}

TEST_F(HealthTest, DaemonForgot) {
  daemon_.Die();
  daemon_.ComeBack();
  ExpectBad("NotMounted", "does not know");
}

TEST_F(HealthTest, MountFailed) {
  daemon_.Change(IdOf("v1"), [](daemon::api::MountInfo& info) {
    info.state = "failed";
    info.error = "bootstrap: bad magic";
  });
  ExpectBad("MountFailed", "bad magic");
}

TEST_F(HealthTest, FetchingAheadThatFailsIsNoFaultOfTheVolume) {
  daemon_.Change(IdOf("v1"), [](daemon::api::MountInfo& info) {
    info.error = "fetching ahead fails: registry.test: 503";
  });
  EXPECT_EQ(Ask().status, VolumeHealth::Status::kHealthy) << Ask().message;
  daemon_.Change(IdOf("v1"), [](daemon::api::MountInfo& info) { info.state = "mounting"; });
  ExpectBad("Mounting", "registry.test: 503");
}

TEST_F(HealthTest, RegistryAwayWhileIncompleteIsDegraded) {
  daemon_.Change(IdOf("v1"), [](daemon::api::MountInfo& info) {
    info.error = "registry.test: 503";
    info.error_at_unix = 1'700'000'123;
  });
  ExpectBad("ReadsFail", "503", VolumeHealth::Status::kDegraded);
  const auto stats = node_->Stats(Context{}, "v1", "/pods/a");
  ASSERT_TRUE(stats.ok());
  EXPECT_TRUE(stats->abnormal);
  EXPECT_EQ(stats->total_bytes, 1'000'000U);
}

TEST_F(HealthTest, TargetGone) {
  table_.RemoveTop("/pods/a");
  ExpectBad("TargetNotMounted", "/pods/a");
}

TEST_F(HealthTest, DeadEndpoint) {
  mounter_->on_usage = [](const std::string&) -> Status {
    return Error::FromErrno(ENOTCONN, "statvfs");
  };
  ExpectBad("MountDoesNotAnswer", "statvfs");
}

TEST_F(HealthTest, AHangingMountDoesNotHangTheAnswer) {
  auto gate = std::make_shared<std::atomic<bool>>(false);
  auto calls = std::make_shared<std::atomic<int>>(0);
  mounter_->on_usage = [gate, calls](const std::string&) -> Status {
    ++*calls;
    gate->wait(false);
    return {};
  };
  for (int i = 0; i < 3; ++i) {
    auto health = node_->Health(Context{}.WithTimeout(milliseconds(20)), "v1", "/pods/a");
    ASSERT_TRUE(health.ok());
    EXPECT_EQ(health->reason, "MountDoesNotAnswer");
    EXPECT_NE(health->message.find("has not answered"), std::string::npos);
  }
  // One thread hangs, not one for each question.
  EXPECT_EQ(*calls, 1);
  *gate = true;
  gate->notify_all();
  while (Ask().status != VolumeHealth::Status::kHealthy) std::this_thread::yield();
}

}  // namespace
}  // namespace davit::csi
