#include "csi/core/journal.h"

#include <gtest/gtest.h>

#include "common/base/fd.h"

namespace davit::csi {
namespace {

JournalEntry Entry(const std::string& volume, const std::string& target) {
  JournalEntry entry{.volume_id = volume, .target = target, .pod = "ns/pod", .published = true};
  entry.args.spec = VolumeSpec{.image = "r/i:1",
                               .ready = daemon::api::Ready::kPrefetched,
                               .platform = "linux/arm64",
                               .plain_http = true,
                               .fill = false};
  entry.args.mode = AccessMode::kMultiNodeReaderOnly;
  entry.args.mount_flags = {"noexec"};
  entry.args.read_only = true;
  entry.mount_id = MountIdOf(volume, entry.args.spec);
  entry.created_unix = 1'700'000'000;
  return entry;
}

class JournalTest : public ::testing::Test {
 protected:
  std::unique_ptr<Journal> Open() {
    auto journal = Journal::Open(dir_.path());
    EXPECT_TRUE(journal.ok());
    return *std::move(journal);
  }
  TempDir dir_ = *TempDir::Create("davit-journal");
};

TEST_F(JournalTest, KeepsEveryFieldOverARestart) {
  const JournalEntry entry = Entry("v \"1\"", "/pods/a b/\xc3\xa9");
  ASSERT_TRUE(Open()->Put(entry).ok());
  const auto found = Open()->Find(entry.volume_id, entry.target);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->args, entry.args);
  EXPECT_EQ(found->mount_id, entry.mount_id);
  EXPECT_EQ(found->pod, entry.pod);
  EXPECT_TRUE(found->published);
  EXPECT_EQ(found->created_unix, entry.created_unix);
}

TEST_F(JournalTest, OneFilePerVolumeAndTarget) {
  auto journal = Open();
  for (const auto& [volume, target] : std::vector<std::pair<std::string, std::string>>{
           {"a", "/t/1"}, {"a", "/t/2"}, {"b", "/t/3"}, {"a/", "t"}, {"a", "/t"}}) {
    JournalEntry entry = Entry(volume, "/x");
    entry.target = target;
    ASSERT_TRUE(journal->Put(entry).ok());
    ASSERT_TRUE(journal->Put(entry).ok());
  }
  EXPECT_EQ(ListDirectory(dir_.path())->size(), 5U);
  EXPECT_EQ(journal->OfVolume("a").size(), 3U);
  EXPECT_EQ(journal->OfTarget("/t/3").size(), 1U);
  EXPECT_EQ(journal->References(Entry("a", "/t/1").mount_id), 3U);
  ASSERT_TRUE(journal->Remove("a", "/t/1").ok());
  ASSERT_TRUE(journal->Remove("a", "/t/1").ok());
  EXPECT_FALSE(journal->Find("a", "/t/1"));
  EXPECT_EQ(Open()->All().size(), 3U);  // "a/" + "t" is no path and is set aside
}

TEST_F(JournalTest, DamagedFilesAreSetAside) {
  ASSERT_TRUE(Open()->Put(Entry("good", "/t/1")).ok());
  const std::string good = EntryToJson(Entry("other", "/t/2"));
  const auto write = [&](const char* name, std::string_view text) {
    ASSERT_TRUE(WriteFileAtomic(dir_.path() + "/" + name, AsBytes(text)).ok());
  };
  write("1.json", "");
  write("2.json", good.substr(0, good.size() / 2));
  write("3.json", "[]");
  std::string future = good;
  future.replace(future.find("\"version\": 1"), 12, "\"version\": 9");
  write("4.json", future);
  std::string escape = good;
  escape.replace(escape.find("/t/2"), 4, "/t/../../etc");
  write("5.json", escape);
  write("6.json.tmp.abcdef", "left by a crash");
  write("README", "not ours");
  EXPECT_EQ(Open()->All().size(), 1U);
  const auto names = *ListDirectory(dir_.path());
  int bad = 0;
  for (const auto& name : names) bad += name.ends_with(".bad") ? 1 : 0;
  EXPECT_EQ(bad, 5);
  EXPECT_EQ(names.size(), 7U);  // and the good one, and README
}

TEST_F(JournalTest, TheMountIdIsNotTakenFromTheFile) {
  std::string text = EntryToJson(Entry("v", "/t"));
  const std::string id = Entry("v", "/t").mount_id;
  text.replace(text.find(id), id.size(), "../../../../etc");
  const auto entry = EntryFromJson(text);
  ASSERT_TRUE(entry.ok());
  EXPECT_EQ(entry->mount_id, id);
}

TEST_F(JournalTest, AFailedWriteChangesNothing) {
  auto journal = Open();
  ASSERT_TRUE(RemoveTree(dir_.path()).ok());
  EXPECT_FALSE(journal->Put(Entry("v", "/t")).ok());
  EXPECT_FALSE(journal->Find("v", "/t"));
}

}  // namespace
}  // namespace davit::csi
