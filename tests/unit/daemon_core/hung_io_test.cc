#include "daemon/core/hung_io.h"

#include <gtest/gtest.h>

#include "fakes.h"

namespace davit::daemon {
namespace {

using std::chrono::milliseconds;

class HungIoTest : public ::testing::Test {
 protected:
  std::vector<api::InflightIo> List() {
    return ListInflight({{"m", session, nullptr}}, milliseconds(1000));
  }
  testing::FakeMounter mounter;
  std::shared_ptr<rafs::FuseSession> session = *mounter.Start({});
  testing::ManualClock clock;
  EventLog events{10, clock};
  HungIoReport report;
};

TEST_F(HungIoTest, OldestFirstAndMarked) {
  mounter.SetInflight(
      {{"read", 5, 0, 4096, milliseconds(10)}, {"open", 6, 0, 0, milliseconds(1000)}});
  const auto list = List();
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0].operation, "open");
  EXPECT_TRUE(list[0].hung);
  EXPECT_FALSE(list[1].hung);
}

TEST_F(HungIoTest, EachRequestIsReportedOnce) {
  mounter.SetInflight({{"read", 5, 0, 4096, milliseconds(2000)}});
  EXPECT_EQ(report.Check(List(), {}, events), 1);
  EXPECT_EQ(report.Check(List(), {}, events), 0);
  mounter.SetInflight(
      {{"read", 5, 0, 4096, milliseconds(9000)}, {"read", 7, 0, 1, milliseconds(1500)}});
  EXPECT_EQ(report.Check(List(), {}, events), 1);
  EXPECT_EQ(events.Since(0).size(), 2U);
  EXPECT_EQ(events.Since(0)[0].kind, "hung_io");
  // Answered, and later it hangs again.
  mounter.SetInflight({});
  EXPECT_EQ(report.Check(List(), {}, events), 0);
  mounter.SetInflight({{"read", 5, 0, 4096, milliseconds(2000)}});
  EXPECT_EQ(report.Check(List(), {}, events), 1);
}

}  // namespace
}  // namespace davit::daemon
