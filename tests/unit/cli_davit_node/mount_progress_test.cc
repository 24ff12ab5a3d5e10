#include "cli/mount_progress.h"

#include <gtest/gtest.h>

#include <sstream>

namespace davit::cli {
namespace {

using daemon::api::MountInfo;

class MountProgressTest : public ::testing::Test {
 protected:
  static MountInfo Waiting(std::uint64_t ready, std::string error = "") {
    MountInfo info;
    info.id = "m";
    info.source = "registry/app:v1";
    info.state = "mounting";
    info.mounted_at_unix = 1;
    info.bytes_total = 4'000'000;
    info.bytes_ready = ready;
    info.error = std::move(error);
    if (!info.error.empty()) info.error_code = "unavailable";
    return info;
  }
  std::ostringstream out, err;
  Io io{.out = out, .err = err};
};

TEST_F(MountProgressTest, ALogHasEachReasonOnce) {
  MountProgress progress(io, 0);
  progress.Show(Waiting(0));
  EXPECT_EQ(err.str(), "");
  progress.Show(Waiting(0, "fetching ahead fails: 1 try"));
  progress.Show(Waiting(0, "fetching ahead fails: 2 tries"));
  EXPECT_EQ(err.str(), "davit: m waits: fetching ahead fails: 1 try\n");
  MountInfo other = Waiting(0, "no\nroom");
  other.error_code = "resource_exhausted";
  progress.Show(other);
  EXPECT_EQ(err.str(),
            "davit: m waits: fetching ahead fails: 1 try\n"
            "davit: m waits: no room\n");
}

TEST_F(MountProgressTest, ATerminalHasOneLineThatFits) {
  {
    MountProgress progress(io, 30);
    progress.Show(Waiting(1'000'000));
    EXPECT_EQ(err.str(), "\r\033[K 25.0 % local");
    err.str("");
    progress.Show(Waiting(1'000'000));  // nothing new
    EXPECT_EQ(err.str(), "");
    progress.Show(Waiting(4'000'000, "away\n\033[2J and a long reason"));
    // What came from a registry does not move the cursor.
    EXPECT_EQ(err.str(), "\r\033[K 99.9 % local, away  [2J and ");
    err.str("");
    progress.Show(
        Waiting(2'000'000, "gr\xc3\xbc\xc3\x9f\x65 \xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"));
    EXPECT_EQ(err.str(), "\r\033[K 50.0 % local, gr\xc3\xbc\xc3\x9f\x65 \xe2\x82\xac\xe2\x82\xac");
    err.str("");
  }
  EXPECT_EQ(err.str(), "\r\033[K");
}

TEST_F(MountProgressTest, BeforeTheMountNoShareIsKnown) {
  MountProgress progress(io, 30);
  MountInfo info = Waiting(0, "away");
  info.bytes_total = 0;
  progress.Show(info);
  EXPECT_EQ(err.str(), "\r\033[Kaway");
}

TEST_F(MountProgressTest, AtTheLimitItSaysWhatWasReached) {
  const Error error = NotReadyInTime(Waiting(1'000'000, "fetching ahead fails: away"),
                                     daemon::api::Ready::kComplete, "3s", "it goes on");
  EXPECT_EQ(error.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(error.ToString(),
            "registry/app:v1 is not complete after 3s: it is mounted with 976.6 KiB of 3.8 MiB "
            "here; "
            "fetching ahead fails: away (it goes on)");
  MountInfo early = Waiting(0);
  early.mounted_at_unix = 0;
  EXPECT_EQ(NotReadyInTime(early, daemon::api::Ready::kMounted, "3s", "x").message(),
            "registry/app:v1 is not mounted after 3s: it is not mounted yet");
}

}  // namespace
}  // namespace davit::cli
