#include "daemon/core/mount_service.h"

#include <gtest/gtest.h>

#include <thread>

#include "common/base/fd.h"
#include "fakes.h"

namespace davit::daemon {
namespace {

constexpr std::chrono::seconds kPatience{20};

class MountServiceTest : public ::testing::Test {
 protected:
  ~MountServiceTest() override {
    images.Release();
    images.BlockListed(false);
    if (service != nullptr) service->Shutdown(OnStop::kUnmount);
  }

  void Open() {
    auto store = MountStore::Open(dir.path() + "/mounts");
    ASSERT_TRUE(store.ok());
    service = MountService::Create({.threads = 2, .retry_min = std::chrono::seconds(2)},
                                   {.images = images,
                                    .events = events,
                                    .store = *store,
                                    .mounter =
                                        [this](auto, const rafs::FuseOptions& o) {
                                          if (on_start) on_start();
                                          return mounter.Start(o);
                                        },
                                    .prepare = [this](const std::string&, bool restored) -> Status {
                                      if (restored) ++restored_prepared;
                                      return {};
                                    },
                                    .clock = clock,
                                    .credentials = nullptr});
    ASSERT_TRUE(service->Restore().ok());
  }

  void Reopen(OnStop how) {
    service->Shutdown(how);
    service = nullptr;
    Open();
  }

  static api::MountRequest Request(const std::string& id = "m") {
    api::MountRequest request;
    request.id = id;
    request.source = "registry/app:v1";
    request.mountpoint = "/mnt/" + id;
    request.fill = false;
    return request;
  }

  // Waits until the mount has a state.
  bool Await(const std::string& id, std::string_view state) {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < until) {
      const auto info = service->Get(id);
      if (info.ok() && info->state == state) return true;
      std::this_thread::yield();
    }
    return false;
  }

  TempDir dir = *TempDir::Create("service");
  testing::FakeImages images;
  testing::FakeMounter mounter;
  testing::ManualClock clock;
  EventLog events{100, clock};
  std::atomic<int> restored_prepared{0};
  std::function<void()> on_start;  // called when a mount is nearly there
  std::shared_ptr<MountService> service;
};

TEST_F(MountServiceTest, MountListUnmount) {
  Open();
  const auto info = service->Mount(Request(), kPatience);
  ASSERT_TRUE(info.ok()) << info.error().ToString();
  EXPECT_EQ(info->state, "mounted");
  EXPECT_EQ(info->bytes_total, 20U);
  EXPECT_EQ(service->List().size(), 1U);
  EXPECT_EQ(mounter.live_sessions(), 1);
  EXPECT_TRUE(*service->Unmount("m", false, kPatience));
  EXPECT_TRUE(service->List().empty());
  EXPECT_EQ(mounter.live_sessions(), 0);
  EXPECT_EQ(images.open_images(), 0);
  EXPECT_TRUE(*service->Unmount("m", false, kPatience));  // idempotent
  EXPECT_EQ(service->Get("m").error().code(), Code::kNotFound);
}

TEST_F(MountServiceTest, TheSameRequestAgainIsTheSameMount) {
  Open();
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  EXPECT_EQ(mounter.started(), 1);
  EXPECT_EQ(images.requests().size(), 1U);
}

TEST_F(MountServiceTest, OtherParametersAreRefused) {
  Open();
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  for (const auto change : {0, 1, 2, 3, 4}) {
    api::MountRequest other = Request();
    if (change == 0) other.source += "x";
    if (change == 1) other.mountpoint += "x";
    if (change == 2) other.platform = "linux/arm64";
    if (change == 3) other.plain_http = true;
    if (change == 4) other.fill = !other.fill;
    EXPECT_EQ(service->Mount(other, kPatience).error().code(), Code::kAlreadyExists) << change;
  }
  api::MountRequest same_place = Request("n");
  same_place.mountpoint = "/mnt//m/";
  EXPECT_EQ(service->Mount(same_place, kPatience).error().code(), Code::kAlreadyExists);
}

TEST_F(MountServiceTest, OneOperationAtATime) {
  Open();
  images.Block();
  const auto pending = service->Mount(Request(), Duration::zero());
  ASSERT_TRUE(pending.ok());
  EXPECT_EQ(pending->state, "mounting");
  EXPECT_EQ(service->Mount(Request(), Duration::zero()).error().code(), Code::kAborted);
  EXPECT_EQ(service->Get("m")->state, "mounting");  // nobody is blocked
  images.Release();
  EXPECT_TRUE(Await("m", "mounted"));
}

TEST_F(MountServiceTest, ManyStuckMountsBlockNobodyElse) {
  Open();
  images.Block();
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(service->Mount(Request("m" + std::to_string(i)), Duration::zero()).ok());
  }
  EXPECT_EQ(service->List().size(), 50U);
  EXPECT_EQ(service->Get("m49")->state, "mounting");
  images.Release();
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(Await("m" + std::to_string(i), "mounted")) << i;
}

TEST_F(MountServiceTest, StuckMountsDoNotHoldUnmountsUp) {
  Open();
  ASSERT_TRUE(service->Mount(Request("good"), kPatience).ok());
  images.Block();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(service->Mount(Request("m" + std::to_string(i)), Duration::zero()).ok());
  }
  EXPECT_TRUE(*service->Unmount("good", false, kPatience));
  // Nor is one that waits behind them for its turn.
  EXPECT_TRUE(*service->Unmount("m4", false, kPatience));
  EXPECT_EQ(service->List().size(), 4U);
}

TEST_F(MountServiceTest, StuckMountsDoNotHoldUpAnUnmountOfOneAskedForMore) {
  Open();
  ASSERT_TRUE(service->Mount(Request("a"), kPatience).ok());
  ASSERT_TRUE(service->Mount(Request("b"), kPatience).ok());
  images.Block();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(service->Mount(Request("m" + std::to_string(i)), Duration::zero()).ok());
  }
  for (const auto& [id, ready] :
       {std::pair{"a", api::Ready::kComplete}, std::pair{"b", api::Ready::kPrefetched}}) {
    api::MountRequest request = Request(id);
    request.ready = ready;
    EXPECT_EQ(service->Mount(request, Duration::zero())->state, "mounting");
    const auto gone = service->Unmount(id, false, kPatience);
    ASSERT_TRUE(gone.ok()) << id << ": " << gone.error().ToString();
    EXPECT_TRUE(*gone) << id;
  }
  EXPECT_EQ(service->List().size(), 5U);
  images.Release();
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(Await("m" + std::to_string(i), "mounted")) << i;
  EXPECT_EQ(mounter.live_sessions(), 5);  // what was in the queue did nothing
}

TEST_F(MountServiceTest, StuckListsDoNotHoldUnmountsUp) {
  Open();
  images.BlockListed(true);
  for (int i = 0; i < 5; ++i) {  // more than there are threads for lists
    api::MountRequest request = Request("m" + std::to_string(i));
    request.ready = api::Ready::kPrefetched;
    ASSERT_TRUE(service->Mount(request, Duration::zero()).ok());
  }
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (mounter.started() < 5 && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
  }
  const auto gone = service->Unmount("m4", false, kPatience);
  ASSERT_TRUE(gone.ok()) << gone.error().ToString();
  EXPECT_TRUE(*gone);
  images.BlockListed(false);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(Await("m" + std::to_string(i), "mounted")) << i;
}

TEST_F(MountServiceTest, AStopThatCameTooLateIsForgotten) {
  Open();
  std::optional<Code> stopped;
  on_start = [&] {  // so late that the mount succeeds all the same
    const auto unmounted = service->Unmount("m", false, Duration::zero());
    if (!unmounted.ok()) stopped = unmounted.error().code();
  };
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  EXPECT_EQ(stopped, Code::kAborted);
  api::MountRequest request = Request();
  request.ready = api::Ready::kPrefetched;
  const auto info = service->Mount(request, kPatience);
  ASSERT_TRUE(info.ok()) << info.error().ToString();
  EXPECT_EQ(info->state, "mounted");
}

TEST_F(MountServiceTest, UnmountStopsAMountInProgress) {
  Open();
  images.Block();
  ASSERT_TRUE(service->Mount(Request(), Duration::zero()).ok());
  EXPECT_TRUE(*service->Unmount("m", false, kPatience));
  EXPECT_TRUE(service->List().empty());
}

TEST_F(MountServiceTest, AFailureLeavesNothingButItsReason) {
  Open();
  images.FailWith(Error(Code::kUnauthenticated, "registry: 401").WithHint("log in"));
  const auto failed = service->Mount(Request(), kPatience);
  EXPECT_EQ(failed.error().code(), Code::kUnauthenticated);
  EXPECT_EQ(service->Get("m")->state, "failed");
  EXPECT_EQ(service->Get("m")->error_code, "unauthenticated");
  ASSERT_EQ(service->List().size(), 1U);  // where somebody who comes later looks
  EXPECT_EQ(service->List()[0].error, "registry: 401 (log in)");
  EXPECT_TRUE(ListDirectory(dir.path() + "/mounts")->empty());
  images.FailWith(std::nullopt);
  mounter.FailWith(Error(Code::kNotFound, "no such directory"));
  EXPECT_EQ(service->Mount(Request(), kPatience).error().code(), Code::kNotFound);
  EXPECT_TRUE(ListDirectory(dir.path() + "/mounts")->empty());
  EXPECT_EQ(images.open_images(), 0);
  mounter.FailWith(std::nullopt);
  EXPECT_EQ(service->Mount(Request(), kPatience)->state, "mounted");  // at once, by the same id
  EXPECT_TRUE(service->Get("m")->error.empty());
  EXPECT_TRUE(*service->Unmount("m", false, kPatience));
  images.FailWith(Error(Code::kNotFound, "no"));
  ASSERT_FALSE(service->Mount(Request(), kPatience).ok());
  images.FailWith(std::nullopt);
  api::MountRequest other = Request();  // a failed one may be asked for otherwise
  other.source = "registry/app:v2";
  EXPECT_EQ(service->Mount(other, kPatience)->state, "mounted");
}

TEST_F(MountServiceTest, OldFailuresAreForgotten) {
  Open();
  images.FailWith(Error(Code::kNotFound, "no"));
  ASSERT_FALSE(service->Mount(Request(), kPatience).ok());
  clock.Advance(std::chrono::seconds(700));
  service->Maintain();
  EXPECT_TRUE(service->List().empty());
}

TEST_F(MountServiceTest, ABusyMountStaysUnlessForced) {
  Open();
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  mounter.SetBusy(true);
  EXPECT_EQ(service->Unmount("m", false, kPatience).error().code(), Code::kFailedPrecondition);
  EXPECT_EQ(service->Get("m")->state, "mounted");
  EXPECT_EQ(mounter.live_sessions(), 1);
  // Its error was the unmount's, not the mount's: the mount is as it was.
  const auto again = service->Mount(Request(), kPatience);
  ASSERT_TRUE(again.ok()) << again.error().ToString();
  EXPECT_EQ(again->state, "mounted");
  EXPECT_EQ(service->Get("m")->error, "");
  EXPECT_EQ(service->Get("m")->error_code, "");
  EXPECT_EQ(ListDirectory(dir.path() + "/mounts")->size(), 1U);
  EXPECT_TRUE(*service->Unmount("m", true, kPatience));
  EXPECT_EQ(mounter.live_sessions(), 0);
}

TEST_F(MountServiceTest, ReadyCompleteWaitsForTheFill) {
  Open();
  api::MountRequest request = Request();
  request.ready = api::Ready::kComplete;
  EXPECT_EQ(service->Mount(request, Duration::zero())->state, "mounting");
  images.EndFills();
  EXPECT_TRUE(Await("m", "mounted"));
  EXPECT_EQ(service->Mount(request, Duration::zero())->state, "mounted");
  EXPECT_EQ(images.last_start(), storage::FillStart::kAtOnce);
}

TEST_F(MountServiceTest, ReadyCompleteFailsWithTheFill) {
  Open();
  api::MountRequest request = Request();
  request.ready = api::Ready::kComplete;
  ASSERT_TRUE(service->Mount(request, Duration::zero()).ok());
  images.EndFills(Error(Code::kResourceExhausted, "no room"));
  EXPECT_TRUE(Await("m", "failed"));
  EXPECT_EQ(service->Get("m")->error_code, "resource_exhausted");
  EXPECT_EQ(mounter.live_sessions(), 0);
}

TEST_F(MountServiceTest, UnmountDoesNotWaitForTheFill) {
  Open();
  api::MountRequest request = Request();
  request.ready = api::Ready::kComplete;
  ASSERT_TRUE(service->Mount(request, Duration::zero()).ok());
  ASSERT_TRUE(images.AwaitFill());
  EXPECT_TRUE(*service->Unmount("m", false, kPatience));
  images.EndFills();  // late: nobody is there any more
  EXPECT_TRUE(service->List().empty());
}

TEST_F(MountServiceTest, ReadyPrefetchedWaitsForTheList) {
  Open();
  images.BlockListed(true);
  api::MountRequest request = Request();
  request.ready = api::Ready::kPrefetched;
  EXPECT_EQ(service->Mount(request, Duration::zero())->state, "mounting");
  images.BlockListed(false);
  EXPECT_TRUE(Await("m", "mounted"));
}

TEST_F(MountServiceTest, AMountedOneCanBeAskedForMore) {
  Open();
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  api::MountRequest request = Request();
  request.ready = api::Ready::kComplete;
  EXPECT_EQ(service->Mount(request, Duration::zero())->state, "mounting");
  images.EndFills();
  EXPECT_TRUE(Await("m", "mounted"));
  EXPECT_EQ(mounter.started(), 1);
  EXPECT_EQ(images.last_start(), storage::FillStart::kAtOnce);
}

TEST_F(MountServiceTest, ABackgroundFillWithoutRoomEndsNoMount) {
  Open();
  images.BlockListed(true);
  api::MountRequest request = Request();
  request.fill = true;
  request.ready = api::Ready::kPrefetched;
  ASSERT_TRUE(service->Mount(request, Duration::zero()).ok());
  images.EndFills(Error(Code::kResourceExhausted, "no room"));  // the list still comes
  EXPECT_EQ(service->Get("m")->state, "mounting");
  images.BlockListed(false);
  EXPECT_TRUE(Await("m", "mounted"));
}

TEST_F(MountServiceTest, AMountedOneThatCannotBecomeMoreStays) {
  Open();
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  images.FailReadyWith(Error(Code::kUnavailable, "the registry is away"));
  for (const api::Ready ready : {api::Ready::kPrefetched, api::Ready::kComplete}) {
    api::MountRequest request = Request();
    request.ready = ready;
    EXPECT_EQ(service->Mount(request, kPatience).error().code(), Code::kUnavailable);
    const auto info = service->Get("m");
    ASSERT_TRUE(info.ok());
    EXPECT_EQ(info->state, "mounted");
    EXPECT_EQ(info->error, "");
    EXPECT_EQ(mounter.live_sessions(), 1);
    EXPECT_EQ(images.open_images(), 1);
    EXPECT_EQ(ListDirectory(dir.path() + "/mounts")->size(), 1U);  // it survives a restart
    EXPECT_TRUE(service->Mount(Request(), kPatience).ok());        // who asks for less gets it
  }
  images.FailReadyWith(std::nullopt);
  api::MountRequest request = Request();
  request.ready = api::Ready::kPrefetched;
  EXPECT_EQ(service->Mount(request, kPatience)->state, "mounted");
  EXPECT_EQ(mounter.started(), 1);
}

TEST_F(MountServiceTest, AStopWhileMoreIsAskedForKeepsTheRecord) {
  Open();
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  images.BlockListed(true);
  api::MountRequest request = Request();
  request.ready = api::Ready::kPrefetched;
  ASSERT_TRUE(service->Mount(request, Duration::zero()).ok());
  Reopen(OnStop::kUnmount);
  images.BlockListed(false);
  EXPECT_TRUE(Await("m", "mounted"));
}

TEST_F(MountServiceTest, AFailedReadShowsInTheMountUntilItHeals) {
  Open();
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  EXPECT_EQ(service->Get("m")->error, "");
  EXPECT_EQ(service->Get("m")->waited_reads, 3U);
  mounter.SetReadFailure(rafs::ReadFailure{
      .error = Error(Code::kDataLoss, "chunk 3 of blob abc"),
      .at = std::chrono::system_clock::time_point(std::chrono::seconds(1'700'000'123)),
      .inode = 5,
      .offset = 4096,
      .size = 512});
  const auto info = service->Get("m");
  EXPECT_EQ(info->state, "mounted");
  EXPECT_EQ(info->error, "reading inode 5 at 4096 failed: chunk 3 of blob abc");
  EXPECT_EQ(info->error_code, "data_loss");
  EXPECT_EQ(info->error_at_unix, 1'700'000'123);
  EXPECT_EQ(service->List()[0].error, info->error);
  EXPECT_TRUE(service->Mount(Request(), kPatience).ok());  // no reason to refuse the mount
  mounter.SetReadFailure(std::nullopt);
  EXPECT_EQ(service->Get("m")->error, "");
}

TEST_F(MountServiceTest, WhoWaitsForAllOfItSeesWhyItDoesNotCome) {
  Open();
  images.SetAheadError(
      Error(Code::kUnavailable, "registry: connection refused").WithHint("start it"));
  api::MountRequest request = Request();
  request.ready = api::Ready::kComplete;
  ASSERT_TRUE(service->Mount(request, Duration::zero()).ok());
  ASSERT_TRUE(images.AwaitFill());
  auto info = service->Get("m");
  EXPECT_EQ(info->state, "mounting");
  EXPECT_EQ(info->error, "fetching ahead fails: registry: connection refused (start it)");
  EXPECT_EQ(info->error_code, "unavailable");
  EXPECT_EQ(info->error_at_unix, 0);
  mounter.SetReadFailure(rafs::ReadFailure{.error = Error(Code::kDataLoss, "chunk 3"),
                                           .at = std::chrono::system_clock::now(),
                                           .inode = 5,
                                           .offset = 0,
                                           .size = 1});
  EXPECT_EQ(service->Get("m")->error_code, "data_loss");  // what a reader saw comes first
  mounter.SetReadFailure(std::nullopt);
  images.SetAheadError(std::nullopt);  // something came
  EXPECT_EQ(service->Get("m")->error, "");
  images.EndFills();
  EXPECT_TRUE(Await("m", "mounted"));
}

TEST_F(MountServiceTest, RestartKeepsPlaceAndDigest) {
  Open();
  const auto before = service->Mount(Request(), kPatience);
  ASSERT_TRUE(before.ok());
  images.SetDigest("sha256:" + std::string(64, 'b'));  // the tag moves
  Reopen(OnStop::kUnmount);
  ASSERT_TRUE(Await("m", "mounted"));
  EXPECT_TRUE(service->restored());
  EXPECT_EQ(restored_prepared, 1);
  EXPECT_EQ(service->Get("m")->manifest_digest, before->manifest_digest);
  EXPECT_EQ(images.requests().back().pinned_digest, before->manifest_digest);
  EXPECT_EQ(service->Mount(Request(), kPatience)->state, "mounted");
}

TEST_F(MountServiceTest, ForgottenMountsDoNotComeBack) {
  Open();
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  Reopen(OnStop::kForget);
  EXPECT_TRUE(service->List().empty());
  EXPECT_EQ(mounter.live_sessions(), 0);
}

TEST_F(MountServiceTest, WhatCannotBeMountedAgainIsTriedAgain) {
  Open();
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  service->Shutdown(OnStop::kUnmount);
  images.FailWith(Error(Code::kUnavailable, "registry away"));
  service = nullptr;
  Open();
  ASSERT_TRUE(Await("m", "failed"));
  EXPECT_TRUE(service->restored());
  EXPECT_EQ(ListDirectory(dir.path() + "/mounts")->size(), 1U);
  images.FailWith(std::nullopt);
  service->Maintain();  // too early
  EXPECT_EQ(service->Get("m")->state, "failed");
  clock.Advance(std::chrono::seconds(3));
  service->Maintain();
  EXPECT_TRUE(Await("m", "mounted"));
}

TEST_F(MountServiceTest, AMountTakenAwayIsNoticed) {
  Open();
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  mounter.Kill();
  service->Maintain();
  EXPECT_EQ(service->Get("m")->state, "failed");
  EXPECT_EQ(mounter.live_sessions(), 0);
  EXPECT_TRUE(ListDirectory(dir.path() + "/mounts")->empty());
  mounter.Revive();
  EXPECT_EQ(service->Mount(Request(), kPatience)->state, "mounted");
}

TEST_F(MountServiceTest, AfterShutdownNothingIsTaken) {
  Open();
  images.Block();
  ASSERT_TRUE(service->Mount(Request(), Duration::zero()).ok());
  service->Shutdown(OnStop::kUnmount);  // ends the one that is stuck
  EXPECT_EQ(service->Mount(Request("n"), kPatience).error().code(), Code::kUnavailable);
  EXPECT_EQ(mounter.live_sessions(), 0);
}

TEST_F(MountServiceTest, PrefetchNeedsAMount) {
  Open();
  EXPECT_EQ(service->Prefetch("m", {}).error().code(), Code::kNotFound);
  ASSERT_TRUE(service->Mount(Request(), kPatience).ok());
  EXPECT_TRUE(service->Prefetch("m", {"/a"}).ok());
  EXPECT_EQ(service->Prefetch("m", {"/missing"}).error().code(), Code::kNotFound);
  EXPECT_EQ(images.prefetches(), 1);
}

TEST_F(MountServiceTest, SecretsGoNowhere) {
  Open();
  api::MountRequest request = Request();
  request.registry_auth = Secret(R"({"auths":{"registry":{"auth":"aHVudGVyMjpodW50ZXIy"}}})");
  const auto info = service->Mount(request, kPatience);
  ASSERT_TRUE(info.ok()) << info.error().ToString();
  const auto credential = images.requests().back().credentials->Get({}, "registry", "app");
  EXPECT_EQ(credential->username, "hunter2");
  EXPECT_EQ(ReadFile(dir.path() + "/mounts/m.json")->find("aHVudGVy"), std::string::npos);
  EXPECT_EQ(api::ToJson(*info).find("aHVudGVy"), std::string::npos);
}

TEST_F(MountServiceTest, RandomCallsFromManyThreads) {
  Open();
  {
    std::vector<std::jthread> threads;
    for (unsigned seed = 0; seed < 4; ++seed) {
      threads.emplace_back([this, seed] {
        unsigned state = seed + 1;
        for (int n = 0; n < 300; ++n) {
          state = state * 1664525 + 1013904223;
          const std::string id = "m" + std::to_string((state >> 16) % 3);
          switch ((state >> 8) % 4) {
            case 0:
              static_cast<void>(service->Mount(Request(id), std::chrono::milliseconds(50)));
              break;
            case 1:
              static_cast<void>(service->Unmount(id, true, std::chrono::milliseconds(50)));
              break;
            case 2:
              static_cast<void>(service->List());
              break;
            default:
              service->Maintain();
          }
        }
      });
    }
  }
  service->Shutdown(OnStop::kForget);
  EXPECT_EQ(mounter.live_sessions(), 0);
  EXPECT_EQ(images.open_images(), 0);
  EXPECT_TRUE(ListDirectory(dir.path() + "/mounts")->empty());
}

}  // namespace
}  // namespace davit::daemon
