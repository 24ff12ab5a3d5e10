// The log's file: rotation, many writers, and disks and directories that fail.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <regex>
#include <sstream>
#include <thread>

#include "common/base/fd.h"
#include "common/base/log.h"

namespace davit::log {
namespace {

class LogFile : public ::testing::Test {
 protected:
  void SetUp() override {
    auto dir = TempDir::Create("davit-log");
    ASSERT_TRUE(dir.ok());
    dir_.emplace(*std::move(dir));
    path_ = dir_->path() + "/logs/davitd.log";
  }
  void TearDown() override { ASSERT_TRUE(Configure({}).ok()); }

  void Open(std::uint64_t rotate_bytes, int keep) {
    const Status status =
        Configure({.file = path_, .rotate_bytes = rotate_bytes, .keep_files = keep});
    ASSERT_TRUE(status.ok()) << status.error().ToString();
  }

  std::string Directory() const { return dir_->path() + "/logs"; }
  std::size_t CountFiles() const { return ListDirectory(Directory())->size(); }

  /// All lines, oldest first.
  std::vector<std::string> Lines() const {
    std::string text;
    for (std::size_t i = CountFiles(); i-- > 0;) {
      text += *ReadFile(i == 0 ? path_ : path_ + "." + std::to_string(i));
    }
    EXPECT_TRUE(text.empty() || text.back() == '\n') << "the last line is cut";
    std::vector<std::string> out;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
  }

  /// `n` of a line that Info("line", {thread, n, text}) wrote; nothing when it is damaged.
  static std::optional<std::pair<int, int>> Parse(const std::string& line) {
    static const std::regex kWhole(
        R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z info  line thread=(\d+) n=(\d+) text=(x+))");
    std::smatch match;
    if (!std::regex_match(line, match, kWhole)) return std::nullopt;
    const int n = std::stoi(match[2]);
    if (match[3].length() != 1 + n % 90) return std::nullopt;
    return std::pair(std::stoi(match[1]), n);
  }

  static void WriteLine(int thread, int n) {
    Info("line", {{"thread", thread},
                  {"n", n},
                  {"text", std::string(static_cast<std::size_t>(1 + n % 90), 'x')}});
  }

  std::optional<TempDir> dir_;
  std::string path_;
};

TEST_F(LogFile, ManyThreadsLoseAndCutNothingAtRotations) {
  constexpr int kThreads = 8, kLines = 1500;
  constexpr std::uint64_t kLimit = 16 << 10;
  Open(kLimit, 1000);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([t] {
        for (int n = 0; n < kLines; ++n) WriteLine(t, n);
      });
    }
  }
  EXPECT_GT(CountFiles(), 50U);
  const std::vector<std::string> names = *ListDirectory(Directory());
  for (const std::string& name : names) {
    EXPECT_LE(ReadFile(Directory() + "/" + name)->size(), kLimit) << name;
  }
  std::map<int, int> next;  // of each thread
  for (const std::string& line : Lines()) {
    const auto parsed = Parse(line);
    ASSERT_TRUE(parsed) << "damaged: " << line;
    ASSERT_EQ(next[parsed->first], parsed->second) << "of thread " << parsed->first;
    ++next[parsed->first];
  }
  for (int t = 0; t < kThreads; ++t) EXPECT_EQ(next[t], kLines);
}

TEST_F(LogFile, KeepsTheNewestFiles) {
  for (const int keep : {0, 1, 3}) {
    SCOPED_TRACE(keep);
    ASSERT_TRUE(RemoveTree(Directory()).ok());
    Open(4096, keep);
    constexpr int kLines = 600;
    for (int n = 0; n < kLines; ++n) WriteLine(0, n);
    EXPECT_EQ(CountFiles(), static_cast<std::size_t>(keep) + 1);
    const auto lines = Lines();
    ASSERT_FALSE(lines.empty());
    int expected = kLines - static_cast<int>(lines.size());
    for (const std::string& line : lines) {
      const auto parsed = Parse(line);
      ASSERT_TRUE(parsed) << line;
      ASSERT_EQ(parsed->second, expected++);
    }
  }
}

TEST_F(LogFile, GoesOnInAFileOfAnEarlierLife) {
  Open(1 << 20, 2);
  WriteLine(0, 0);
  Open(1 << 20, 2);
  WriteLine(0, 1);
  EXPECT_EQ(Lines().size(), 2U);
}

// A file size limit looks like a disk that is full: what fits is written, the rest refused.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    old_action_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, old_action_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit old_{};
  sighandler_t old_action_;
};

TEST_F(LogFile, FullDiskSendsLinesToStandardErrorAndHeals) {
  Open(1 << 20, 2);
  constexpr int kLines = 300;
  ::testing::internal::CaptureStderr();
  {
    const FileSizeLimit limit(20'001);
    for (int n = 0; n < kLines; ++n) WriteLine(0, n);
  }
  WriteLine(0, kLines);
  const std::string err = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(err.find("the log file cannot be written"), std::string::npos) << err;

  auto lines = Lines();
  ASSERT_GT(lines.size(), 100U);
  EXPECT_NE(lines.back().find("warn  log lines went to standard error lines="), std::string::npos)
      << lines.back();
  lines.pop_back();
  std::istringstream in(err);
  for (std::string line; std::getline(in, line);) {
    if (line.find("cannot be written") == std::string::npos) lines.push_back(line);
  }
  std::map<int, int> seen;  // each line once, in the file or in standard error
  for (const std::string& line : lines) {
    const auto parsed = Parse(line);
    ASSERT_TRUE(parsed) << line;
    ++seen[parsed->second];
  }
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(kLines) + 1);
  EXPECT_EQ(lines.size(), seen.size());
}

TEST_F(LogFile, AVanishedDirectoryIsMadeAgain) {
  Open(1 << 20, 2);
  WriteLine(0, 0);
  ASSERT_TRUE(RemoveTree(Directory()).ok());
  WriteLine(0, 1);
  ASSERT_EQ(Lines().size(), 1U);
  EXPECT_EQ(Parse(Lines()[0]), (std::pair{0, 1}));
}

TEST_F(LogFile, ADirectoryThatCannotBeMadeIsNoEnd) {
  Open(4096, 2);
  WriteLine(0, 0);
  ASSERT_TRUE(RemoveTree(Directory()).ok());
  ASSERT_TRUE(WriteFileAtomic(Directory(), AsBytes(std::string_view("in the way"))).ok());
  ::testing::internal::CaptureStderr();
  for (int n = 0; n < 100; ++n) WriteLine(0, n);  // more than the limit of one file
  const std::string err = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::ranges::count(err, '\n'), 101) << err;
  ASSERT_EQ(::unlink(Directory().c_str()), 0);
  WriteLine(0, 100);
  ASSERT_EQ(Lines().size(), 2U);
  EXPECT_NE(Lines()[1].find("standard error lines=100"), std::string::npos) << Lines()[1];
}

TEST_F(LogFile, AFileThatAnotherToolMovedIsLeftToIt) {
  Open(1 << 20, 2);
  WriteLine(0, 0);
  ASSERT_EQ(::rename(path_.c_str(), (dir_->path() + "/elsewhere").c_str()), 0);
  WriteLine(0, 1);
  ASSERT_EQ(Lines().size(), 1U);
  EXPECT_EQ(Parse(Lines()[0]), (std::pair{0, 1}));
}

TEST_F(LogFile, AFileThatCannotBeOpenedIsRefused) {
  ASSERT_TRUE(WriteFileAtomic(Directory(), AsBytes(std::string_view("a file"))).ok());
  const Status status = Configure({.file = path_});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code(), Code::kInvalidArgument);
  EXPECT_NE(status.error().ToString().find(path_.substr(0, path_.rfind('/'))), std::string::npos);
}

}  // namespace
}  // namespace davit::log
