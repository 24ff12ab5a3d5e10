#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/context.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/request_id.h"
#include "common/base/result.h"
#include "common/base/sync.h"
#include "common/base/thread_pool.h"

namespace davit {
namespace {

using std::chrono::milliseconds;

TEST(Error, KeepsCodeAndInnerHintWhenContextIsAdded) {
  Error error = Error::FromErrno(ENOSPC, "write /x").WithHint("free space").WithContext("publish");
  error = std::move(error).WithHint("outer hint");
  EXPECT_EQ(error.code(), Code::kResourceExhausted);
  EXPECT_EQ(error.sys_errno(), ENOSPC);
  EXPECT_EQ(error.ToString(), "publish: write /x: No space left on device (free space)");
}

Result<int> Half(int x) {
  if (x % 2 != 0) return Error(Code::kInvalidArgument, "odd");
  return x / 2;
}
Result<int> Quarter(int x) {
  DAVIT_TRY_ASSIGN(const int half, Half(x));
  DAVIT_TRY(Half(half));
  return half / 2;
}

TEST(Result, PassesErrorsUp) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).error().message(), "odd");
  EXPECT_EQ(ToErrno(Quarter(6).error()), EINVAL);
}

TEST(Bytes, SubBytesRefusesWhatIsOutside) {
  const std::string text = "0123456789";
  EXPECT_EQ(AsText(*SubBytes(AsBytes(text), 2, 3, "x")), "234");
  EXPECT_TRUE(SubBytes(AsBytes(text), 10, 0, "x").ok());
  EXPECT_EQ(SubBytes(AsBytes(text), 11, 0, "x").error().code(), Code::kDataLoss);
  EXPECT_FALSE(SubBytes(AsBytes(text), 2, UINT64_MAX, "x").ok());
  EXPECT_FALSE(SubBytes(AsBytes(text), UINT64_MAX, 2, "x").ok());
  EXPECT_FALSE(LoadAt<std::uint64_t>(AsBytes(text), 3, "x").ok());
}

TEST(Bytes, HexRoundTrip) {
  EXPECT_EQ(ToHex(AsBytes(std::string("\x00\xff\x10", 3))), "00ff10");
  EXPECT_EQ(*FromHex("00FF10"), std::string("\x00\xff\x10", 3));
  EXPECT_FALSE(FromHex("0g").ok());
  EXPECT_FALSE(FromHex("0").ok());
}

TEST(Files, AtomicWriteLeavesNoTemporaryAndSetsMode) {
  auto dir = TempDir::Create("davit-base");
  ASSERT_TRUE(dir.ok());
  const std::string path = dir->path() + "/f";
  ASSERT_TRUE(WriteFileAtomic(path, AsBytes("one"), 0640).ok());
  ASSERT_TRUE(WriteFileAtomic(path, AsBytes("two"), 0640).ok());
  EXPECT_EQ(*ReadFile(path), "two");
  struct stat st{};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0640U);
  EXPECT_EQ(ListDirectory(dir->path())->size(), 1U);
  EXPECT_EQ(ReadFile(path, 2).error().code(), Code::kResourceExhausted);
}

TEST(Files, RemoveTreeDoesNotFollowSymlinks) {
  auto keep = TempDir::Create("davit-base");
  auto gone = TempDir::Create("davit-base");
  ASSERT_TRUE(keep.ok() && gone.ok());
  ASSERT_TRUE(WriteFileAtomic(keep->path() + "/f", AsBytes("x")).ok());
  const std::string root = gone->path() + "/a";
  ASSERT_TRUE(MakeDirectories(root + "/b/c").ok());
  ASSERT_EQ(::symlink(keep->path().c_str(), (root + "/b/link").c_str()), 0);
  ASSERT_TRUE(RemoveTree(root).ok());
  EXPECT_NE(::access(root.c_str(), F_OK), 0);
  EXPECT_TRUE(ReadFile(keep->path() + "/f").ok());
  EXPECT_TRUE(RemoveTree(root).ok());
}

TEST(CondVar, WaitEndsOnStopAndDeadline) {
  Mutex mutex;
  CondVar cv;
  std::stop_source stop;
  Context ctx;
  ctx.stop = stop.get_token();
  std::thread stopper([&] {
    std::this_thread::sleep_for(milliseconds(20));
    stop.request_stop();
  });
  mutex.lock();
  EXPECT_FALSE(cv.Wait(mutex, ctx));
  EXPECT_FALSE(cv.Wait(mutex, Context{}.WithTimeout(milliseconds(5))));
  mutex.unlock();
  stopper.join();
  EXPECT_EQ(ctx.Check("read").error().code(), Code::kCancelled);
  EXPECT_EQ(Context{}.WithTimeout(milliseconds(-1)).Check("read").error().code(),
            Code::kDeadlineExceeded);
}

TEST(CondVar, WaitEndsOnNotification) {
  Mutex mutex;
  CondVar cv;
  bool ready = false;
  const std::jthread notifier([&] {
    MutexLock lock(mutex);
    ready = true;
    cv.NotifyAll();
  });
  MutexLock lock(mutex);
  while (!ready) ASSERT_TRUE(cv.Wait(mutex, Context{}.WithTimeout(std::chrono::seconds(10))));
}

TEST(ThreadPool, RunsEverythingAndRefusesAfterShutdown) {
  std::atomic<int> sum = 0;
  ThreadPool pool("t", 3, 2);
  for (int i = 1; i <= 100; ++i) {
    ASSERT_TRUE(pool.Submit([&sum, i] { sum += i; }).ok());
  }
  pool.WaitIdle();
  EXPECT_EQ(sum, 5050);
  pool.Shutdown();
  EXPECT_FALSE(pool.Submit([] {}).ok());
}

TEST(Log, JsonLineHoldsScopeAndEscapes) {
  auto dir = TempDir::Create("davit-log");
  ASSERT_TRUE(dir.ok());
  const std::string path = dir->path() + "/log";
  ASSERT_TRUE(log::Configure({.level = log::Level::kInfo, .json = true, .file = path}).ok());
  {
    log::Scope scope({{"volume", "v1"}});
    log::Info("say \"hi\"\n", {{"n", 3}});
    log::Debug("not written");
  }
  log::Info("second");
  ASSERT_TRUE(log::Configure({}).ok());
  const std::string text = *ReadFile(path);
  EXPECT_NE(text.find(R"("msg":"say \"hi\"\n","volume":"v1","n":3})"), std::string::npos) << text;
  EXPECT_NE(text.find(R"("msg":"second"})"), std::string::npos) << text;
  EXPECT_EQ(text.find("not written"), std::string::npos);
  EXPECT_FALSE(log::ParseLevel("loud").ok());
}

TEST(Log, TasksOfAPoolLogWithTheFieldsOfWhoSubmittedThem) {
  auto dir = TempDir::Create("davit-log");
  ASSERT_TRUE(dir.ok());
  const std::string path = dir->path() + "/log";
  ASSERT_TRUE(log::Configure({.level = log::Level::kInfo, .file = path}).ok());
  {
    ThreadPool pool("carry", 1);
    const log::Scope outer({{"request", "r1"}, {"image", "outer"}});
    ASSERT_TRUE(pool.Submit([] {
                      EXPECT_EQ(log::ScopeValue("request"), "r1");
                      const log::Scope inner({{"image", "inner"}});
                      EXPECT_EQ(log::ScopeValue("image"), "inner");
                      log::Info("task", {{"n", 1}});
                      log::Info("own", {{"image", "own"}});
                    })
                    .ok());
    pool.WaitIdle();
    std::string left = "?";
    {
      std::thread([&] {
        static_cast<void>(pool.Submit([&left] { left = log::ScopeValue("request"); }));
      }).join();
      pool.WaitIdle();
    }
    EXPECT_EQ(left, "");  // nothing stays with the pool's thread
  }
  ASSERT_TRUE(log::Configure({}).ok());
  const std::string text = *ReadFile(path);
  // Each key once, from the innermost scope that has it.
  EXPECT_NE(text.find("task request=r1 image=inner n=1\n"), std::string::npos) << text;
  EXPECT_NE(text.find("own request=r1 image=own\n"), std::string::npos) << text;
}

TEST(RequestId, CallersMayNameTheirCallsWithinLimits) {
  EXPECT_EQ(RequestIdOf("kubelet-7:a.b_c"), "kubelet-7:a.b_c");
  EXPECT_EQ(RequestIdOf(std::string(128, 'x')), std::string(128, 'x'));
  for (const std::string& bad : {std::string(), std::string(129, 'x'), std::string("a b"),
                                 std::string("a\nb"), std::string("a\"b")}) {
    EXPECT_EQ(RequestIdOf(bad).size(), 16U) << bad;
  }
  EXPECT_NE(NewRequestId(), NewRequestId());
}

}  // namespace
}  // namespace davit
