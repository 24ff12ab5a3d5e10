#include "daemon/core/mount_store.h"

#include <gtest/gtest.h>

#include "common/base/fd.h"
#include "daemon/core/event_log.h"
#include "fakes.h"

namespace davit::daemon {
namespace {

MountRecord Record(const std::string& id) {
  MountRecord record;
  record.request.id = id;
  record.request.source = "registry/app:v1";
  record.request.mountpoint = "/mnt/x";
  record.request.ready = api::Ready::kComplete;
  record.request.fill = false;
  record.request.plain_http = true;
  record.request.registry_auth = Secret("hunter2");
  record.manifest_digest = "sha256:aa";
  record.platform = "linux/amd64";
  return record;
}

TEST(MountStoreTest, WhatWasSavedIsLoadedWithoutSecrets) {
  const auto dir = TempDir::Create("store");
  const auto store = MountStore::Open(dir->path() + "/mounts");
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE(store->Save(Record("a")).ok());
  ASSERT_TRUE(store->Save(Record("..")).ok());  // a valid id, and no path
  const auto loaded = store->Load();
  ASSERT_TRUE(loaded.ok());
  ASSERT_EQ(loaded->size(), 2U);
  const MountRecord& record = (*loaded)[1];
  EXPECT_EQ(record.request.id, "a");
  EXPECT_EQ(record.request.source, "registry/app:v1");
  EXPECT_EQ(record.request.ready, api::Ready::kComplete);
  EXPECT_FALSE(record.request.fill);
  EXPECT_TRUE(record.request.plain_http);
  EXPECT_EQ(record.manifest_digest, "sha256:aa");
  EXPECT_TRUE(record.request.registry_auth.empty());
  EXPECT_EQ(ReadFile(dir->path() + "/mounts/a.json")->find("hunter2"), std::string::npos);
  EXPECT_TRUE(store->Remove("a").ok());
  EXPECT_TRUE(store->Remove("a").ok());
  EXPECT_EQ(store->Load()->size(), 1U);
}

TEST(MountStoreTest, DamagedRecordsDoNotHideTheOthers) {
  const auto dir = TempDir::Create("store");
  const auto store = MountStore::Open(dir->path());
  ASSERT_TRUE(store->Save(Record("good")).ok());
  const std::string good = *ReadFile(dir->path() + "/good.json");
  const auto put = [&](const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomic(dir->path() + "/" + name, AsBytes(text)).ok());
  };
  put("empty.json", "");
  put("cut.json", good.substr(0, good.size() / 2));
  put("other-id.json", good);
  put("newer.json", R"({"version":2})");
  put("evil.json", R"({"version":1,"id":"evil","source":"s","mountpoint":"/a/../b","platform":"",
                       "ready":"mounted","manifest_digest":"","chosen_platform":""})");
  put("leftover.tmp", "x");
  const auto loaded = store->Load();
  ASSERT_TRUE(loaded.ok());
  ASSERT_EQ(loaded->size(), 1U);
  EXPECT_EQ((*loaded)[0].request.id, "good");
}

TEST(EventLogTest, KeepsTheLastOnes) {
  testing::ManualClock clock;
  EventLog events(3, clock);
  for (int i = 1; i <= 5; ++i) events.Add("mounted", "m", std::to_string(i));
  const auto all = events.Since(0);
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all.front().sequence, 3U);
  EXPECT_EQ(all.back().message, "5");
  EXPECT_EQ(events.Since(4).size(), 1U);
  EXPECT_TRUE(events.Since(5).empty());
  EXPECT_TRUE(events.Since(UINT64_MAX).empty());
}

}  // namespace
}  // namespace davit::daemon
