// davitd as a child process, with shell scripts in its place.
#include "csi/core/daemon_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <sstream>
#include <thread>
#include <vector>

#include "tests/support/csi_fakes/fake_node.h"

namespace davit::csi {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Answers with the pid that the script has written, while that process lives.
class ScriptClient final : public daemon::Client {
 public:
  explicit ScriptClient(std::string pid_path) : pid_path_(std::move(pid_path)) {}
  Result<daemon::api::DaemonInfo> Info(const Context&) override {
    const pid_t pid = Pid();
    if (pid == 0 || mute || ::kill(pid, 0) != 0) return Error(Code::kUnavailable, "not there");
    return daemon::api::DaemonInfo{.state = "running", .pid = pid};
  }
  Result<daemon::api::MountInfo> Mount(const Context&, const daemon::api::MountRequest&) override {
    return Unused();
  }
  Status Unmount(const Context&, const std::string&) override { return Unused(); }
  Result<daemon::api::MountInfo> Get(const Context&, const std::string&) override {
    return Unused();
  }
  Result<std::vector<daemon::api::MountInfo>> List(const Context&) override { return Unused(); }
  Result<std::string> Call(const Context&, const std::string&, const std::string&,
                           const std::string&) override {
    return Unused();
  }
  pid_t Pid() const {
    const auto text = ReadFile(pid_path_, 64);
    pid_t pid = 0;
    if (text.ok()) std::from_chars(text->data(), text->data() + text->size(), pid);
    return pid;
  }
  std::atomic<bool> mute = false;

 private:
  static Error Unused() { return Error(Code::kUnsupported, "not part of these tests"); }
  const std::string pid_path_;
};

// A process that is nobody's daemon; killed with the test, however that ends.
class Sleeper {
 public:
  Sleeper() : pid_(::fork()) {
    if (pid_ != 0) return;
    ::execl("/bin/sleep", "sleep", "1000", nullptr);
    ::_exit(127);
  }
  ~Sleeper() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }
  /// Ended or not, without reaping it.
  bool Ended() const {
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == pid_;
  }

 private:
  const pid_t pid_;
};

class DaemonProcessTest : public ::testing::Test {
 protected:
  DaemonProcessTest() : client_(Path("running")) {}

  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }
  DaemonProcess::Options OptionsFor(const std::string& body) {
    // The pid appears whole or not at all.
    const std::string script = "#!/bin/sh\necho x >>" + Path("starts") + "\necho \"$MARK $1\" >" +
                               Path("seen") + "\necho $$ >" + Path("tmp") + " && mv " +
                               Path("tmp") + " " + Path("running") + "\n" + body + "\n";
    EXPECT_TRUE(WriteFileAtomic(Path("davitd"), AsBytes(script), 0755).ok());
    return {.program = Path("davitd"),
            .arguments = {"argument"},
            .env = {{"MARK", "from-csi"}},
            .pid_file = Path("pid"),
            .start_patience = seconds(20),
            .stop_patience = seconds(20),
            .backoff_min = milliseconds(1),
            .backoff_max = milliseconds(50),
            .on_started = [this] { ++started_; }};
  }
  std::unique_ptr<DaemonProcess> Start(DaemonProcess::Options options) {
    auto process = DaemonProcess::Start(std::move(options), client_);
    EXPECT_TRUE(process.ok()) << process.error().ToString();
    return *std::move(process);
  }
  template <class Condition>
  static bool Eventually(Condition condition) {
    for (int i = 0; i < 20'000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return false;
  }
  std::size_t Starts() const {
    const auto text = ReadFile(Path("starts"));
    return text.ok() ? text->size() / 2 : 0;
  }
  static bool Lives(pid_t pid) { return ::kill(pid, 0) == 0; }

  TempDir dir_ = *TempDir::Create("davit-daemon");
  ScriptClient client_;
  std::atomic<int> started_ = 0;
};

TEST_F(DaemonProcessTest, StartsAndStopsIt) {
  auto process = Start(OptionsFor("exec sleep 1000"));
  ASSERT_TRUE(Eventually([&] { return started_ == 1; }));
  const pid_t pid = client_.Pid();
  EXPECT_TRUE(Lives(pid));
  EXPECT_EQ(*ReadFile(Path("seen")), "from-csi argument\n");
  EXPECT_EQ(*ReadFile(Path("pid")), std::to_string(pid));
  process.reset();
  EXPECT_FALSE(Lives(pid));
  EXPECT_FALSE(ReadFile(Path("pid")).ok());
  EXPECT_EQ(Starts(), 1U);
}

TEST_F(DaemonProcessTest, StartsItAgainWhenItDies) {
  auto process = Start(OptionsFor("exec sleep 1000"));
  ASSERT_TRUE(Eventually([&] { return started_ == 1; }));
  for (int round = 2; round <= 3; ++round) {
    ASSERT_EQ(::kill(client_.Pid(), SIGKILL), 0);
    ASSERT_TRUE(Eventually([&] { return started_ == round; }));
  }
  const pid_t pid = client_.Pid();
  process.reset();
  EXPECT_FALSE(Lives(pid));
}

TEST_F(DaemonProcessTest, BacksOffFromOneThatCannotLive) {
  DaemonProcess::Options options = OptionsFor("date +%s%N >>" + Path("times") + "\nexit 3");
  options.backoff_min = milliseconds(40);
  options.backoff_max = seconds(3600);
  const auto process = Start(std::move(options));
  const auto times = [&] {
    std::vector<std::int64_t> out;
    std::istringstream text(ReadFile(Path("times")).value_or(""));
    for (std::int64_t time = 0; text >> time;) out.push_back(time / 1'000'000);
    return out;
  };
  ASSERT_TRUE(Eventually([&] { return times().size() >= 4; }));
  // Twice as long each time; the scripts' own clock, so a slow machine only adds to it.
  EXPECT_GE(times()[2] - times()[1], 60);
  EXPECT_GE(times()[3] - times()[2], 120);
}

TEST_F(DaemonProcessTest, KillsOneThatDoesNotListen) {
  DaemonProcess::Options options = OptionsFor("trap '' TERM\nwhile :; do sleep 0.05; done");
  options.stop_patience = milliseconds(100);
  auto process = Start(std::move(options));
  ASSERT_TRUE(Eventually([&] { return started_ == 1; }));
  const pid_t pid = client_.Pid();
  process.reset();
  EXPECT_FALSE(Lives(pid));
}

TEST_F(DaemonProcessTest, OneThatNeverAnswersIsReplaced) {
  DaemonProcess::Options options = OptionsFor("exec sleep 1000");
  options.start_patience = milliseconds(100);
  client_.mute = true;
  const auto process = Start(std::move(options));
  ASSERT_TRUE(Eventually([&] { return Starts() >= 2; }));
  client_.mute = false;
  EXPECT_TRUE(Eventually([&] { return started_ >= 1; }));
}

TEST_F(DaemonProcessTest, TakesOverTheOneOfAKilledPredecessor) {
  const Sleeper other;
  const std::string pid = std::to_string(other.pid());
  const DaemonProcess::Options options = OptionsFor("exec sleep 1000");
  ASSERT_TRUE(WriteFileAtomic(Path("pid"), AsBytes(pid)).ok());
  ASSERT_TRUE(WriteFileAtomic(Path("running"), AsBytes(pid)).ok());
  auto process = Start(options);
  ASSERT_TRUE(Eventually([&] { return started_ == 1; }));
  EXPECT_EQ(Starts(), 0U);
  EXPECT_FALSE(other.Ended());
  process.reset();  // it is stopped with its new owner
  EXPECT_TRUE(other.Ended());
}

TEST_F(DaemonProcessTest, LeavesOtherPeoplesDaemonsAlone) {
  const Sleeper other;  // it answers, but nobody noted it as ours
  DaemonProcess::Options options = OptionsFor("exec sleep 1000");
  options.backoff_max = milliseconds(5);
  ASSERT_TRUE(WriteFileAtomic(Path("running"), AsBytes(std::to_string(other.pid()))).ok());
  auto process = Start(std::move(options));
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_FALSE(other.Ended());
  process.reset();
  EXPECT_FALSE(other.Ended());
}

TEST_F(DaemonProcessTest, AMissingProgramIsAnError) {
  const auto process = DaemonProcess::Start({.program = Path("nothing")}, client_);
  ASSERT_FALSE(process.ok());
  EXPECT_EQ(process.error().code(), Code::kNotFound);
  EXPECT_NE(process.error().hint().find("--daemon-socket"), std::string::npos);
}

}  // namespace
}  // namespace davit::csi
