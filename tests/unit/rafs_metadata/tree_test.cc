// Inodes, directories, symlinks and extended attributes in every form the format knows.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <set>

#include "tests/unit/rafs_metadata/helpers.h"

namespace davit::rafs {
namespace {

using testing::RawImage;
using testing::XattrBytes;
using Entries = std::vector<RawImage::Entry>;

/// A root with these entries.
std::string WithRoot(RawImage& raw, std::uint64_t root, Entries entries) {
  raw.PutDir(root, root, std::move(entries));
  return raw.Build();
}

TEST(TreeTest, CompactAndExtendedInodes) {
  RawImage raw;
  raw.super.build_time = 1234;
  raw.super.build_time_nsec = 56;
  const auto root = raw.ReserveBlock();
  ASSERT_EQ(root, v6::kRootNid);
  const auto compact = raw.Add({.mode = S_IFREG | 0640,
                                .nlink = 3,
                                .uid = 65535,
                                .gid = 7,
                                .compact = true,
                                .layout = erofs::Layout::kChunkBased});
  const auto extended = raw.Add({.mode = S_IFREG | 04755,
                                 .nlink = 70000,
                                 .uid = 4'000'000'000,
                                 .gid = 100'000,
                                 .mtime = -5,
                                 .mtime_nsec = 999'999'999,
                                 .layout = erofs::Layout::kChunkBased});
  const auto device = raw.Add({.mode = S_IFCHR | 0600, .u = 0x12345});
  const auto fifo = raw.Add({.mode = S_IFIFO | 0644, .u = 9});
  const auto socket = raw.Add({.mode = S_IFSOCK | 0777});
  const auto m = OpenBytes(WithRoot(raw, root,
                                    {{"compact", compact, kTypeFile},
                                     {"hard", compact, kTypeFile},
                                     {"extended", extended, kTypeFile},
                                     {"device", device, 3},
                                     {"fifo", fifo, 5},
                                     {"socket", socket, 6}}));
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  const auto stat = [&](const char* path) { return *(*m)->Stat(*LookupPath(**m, path)); };
  const Attributes c = stat("/compact");
  EXPECT_EQ(c.mode, S_IFREG | 0640U);
  EXPECT_EQ(c.uid, 65535U);
  EXPECT_EQ(c.nlink, 3U);
  EXPECT_EQ(c.mtime, 1234);
  EXPECT_EQ(c.mtime_nsec, 56U);
  EXPECT_EQ(stat("/hard").id, c.id);
  const Attributes e = stat("/extended");
  EXPECT_EQ(e.mode, S_IFREG | 04755U);
  EXPECT_EQ(e.uid, 4'000'000'000U);
  EXPECT_EQ(e.gid, 100'000U);
  EXPECT_EQ(e.nlink, 70000U);
  EXPECT_EQ(e.mtime, -5);
  EXPECT_EQ(e.mtime_nsec, 999'999'999U);
  EXPECT_EQ(stat("/device").rdev, 0x12345U);
  EXPECT_EQ(stat("/fifo").rdev, 0U);
  EXPECT_TRUE(S_ISSOCK(stat("/socket").mode));
}

TEST(TreeTest, NamesThatSortBelowTheDots) {
  RawImage raw;
  const auto root = raw.ReserveBlock();
  const auto file = raw.Add({.mode = S_IFREG | 0644, .layout = erofs::Layout::kChunkBased});
  const std::vector<std::string> names{"!x",
                                       "#",
                                       "%a",
                                       "+",
                                       ",",
                                       "-a",
                                       " ",
                                       "a",
                                       "\xff\xfe",
                                       "\x01",
                                       std::string(255, 'n'),
                                       std::string(255, '-')};
  Entries entries;
  for (const auto& name : names) entries.push_back({name, file, kTypeFile});
  const auto m = OpenBytes(WithRoot(raw, root, entries));
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  for (const auto& name : names) {
    const auto found = (*m)->Lookup((*m)->root(), name);
    ASSERT_TRUE(found.ok()) << name;
    EXPECT_EQ(found->value, file);
  }
  EXPECT_EQ((*m)->Lookup((*m)->root(), ".")->value, root);
  EXPECT_EQ((*m)->Lookup((*m)->root(), "..")->value, root);
  for (const auto* missing : {"", "!", "!xx", "-", "zzz", "\xff", "\xff\xff"}) {
    EXPECT_EQ(Outcome((*m)->Lookup((*m)->root(), missing)), "not_found") << missing;
  }
  EXPECT_EQ((*m)->Lookup({file}, "a").error().sys_errno(), ENOTDIR);
}

class DirectorySizeTest : public ::testing::TestWithParam<std::pair<int, std::size_t>> {};

TEST_P(DirectorySizeTest, LookupAndListingWithCookies) {
  const auto [count, inline_limit] = GetParam();
  RawImage raw;
  const auto root = raw.ReserveBlock();
  const auto file = raw.Add({.mode = S_IFREG | 0644, .layout = erofs::Layout::kChunkBased});
  Entries entries;
  std::set<std::string> names{".", ".."};
  for (int i = 0; i < count; ++i) {
    entries.push_back({"file-" + std::to_string(i), file, kTypeFile});
    names.insert(entries.back().name);
  }
  raw.PutDir(root, root, entries, {}, inline_limit);
  const auto m = OpenBytes(raw.Build());
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  for (const auto& entry : entries) {
    ASSERT_TRUE((*m)->Lookup((*m)->root(), entry.name).ok()) << entry.name;
    ASSERT_FALSE((*m)->Lookup((*m)->root(), entry.name + "x").ok());
  }
  // Seven entries at a time, each call continuing where the last one stopped.
  std::vector<std::string> listed;
  std::uint64_t cookie = 0;
  for (bool more = true; more;) {
    int seen = 0;
    ASSERT_TRUE((*m)->ListDir((*m)->root(), cookie,
                              [&](const DirEntry& entry, std::uint64_t next) {
                                listed.emplace_back(entry.name);
                                EXPECT_NE(next, cookie);
                                cookie = next;
                                return ++seen < 7;
                              })
                    .ok());
    more = seen == 7;
  }
  EXPECT_EQ(listed, std::vector<std::string>(names.begin(), names.end()));
}

// Sizes around block borders; plain and inline; two blocks are full at some of them.
INSTANTIATE_TEST_SUITE_P(Sizes, DirectorySizeTest,
                         ::testing::Values(std::pair{0, 3500U}, std::pair{0, 0U}, std::pair{50, 0U},
                                           std::pair{190, 3500U}, std::pair{191, 0U},
                                           std::pair{3000, 3500U}, std::pair{3000, 0U},
                                           std::pair{20000, 3500U}));

TEST(TreeTest, SymlinksInlineAndPlain) {
  RawImage raw;
  const auto root = raw.ReserveBlock();
  const auto short_link = raw.Add({.mode = S_IFLNK | 0777,
                                   .size = 8,
                                   .compact = true,
                                   .layout = erofs::Layout::kInline,
                                   .tail = "../a/b/c"});
  const std::string target(4096, 't');
  const auto block = raw.Blocks(target);
  const auto long_link = raw.Add({.mode = S_IFLNK | 0777, .size = 4096, .u = block});
  const auto nul = raw.Add({.mode = S_IFLNK | 0777,
                            .size = 3,
                            .layout = erofs::Layout::kInline,
                            .tail = std::string("a\0b", 3)});
  const auto m =
      OpenBytes(WithRoot(raw, root, {{"s", short_link, kTypeLink}, {"l", long_link, kTypeLink}}));
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(*(*m)->ReadLink({short_link}), "../a/b/c");
  EXPECT_EQ(*(*m)->ReadLink({long_link}), target);
  EXPECT_EQ(Outcome((*m)->ReadLink({nul})), "data_loss");
  EXPECT_EQ(Outcome((*m)->ReadLink((*m)->root())), "invalid_argument");
  EXPECT_EQ(Outcome(LookupPath(**m, "/../s")), "invalid_argument");
  EXPECT_EQ(Outcome(LookupPath(**m, "./s")), "invalid_argument");
}

TEST(TreeTest, XattrsInlineSharedAndWithEveryPrefix) {
  using enum erofs::XattrIndex;
  RawImage raw;
  const auto root = raw.ReserveBlock();
  // Shared attributes: the first starts at entry 1 of the area (4-byte steps).
  const std::string shared = "\x01\x01\x01\x01" + XattrBytes(kSecurity, "selinux", "label_t") +
                             XattrBytes(kUser, "big", std::string(60000, 'v'));
  raw.super.xattr_blkaddr = raw.Blocks(shared);
  const auto second =
      static_cast<std::uint32_t>(1 + XattrBytes(kSecurity, "selinux", "label_t").size() / 4);
  const std::string value("\0\x01\xff", 3);
  const auto file =
      raw.Add({.mode = S_IFREG | 0644,
               .layout = erofs::Layout::kChunkBased,
               .shared_xattrs = {1, second},
               .xattrs = XattrBytes(kUser, "a", "1") + XattrBytes(kPosixAclAccess, "", value) +
                         XattrBytes(kPosixAclDefault, "", "d") + XattrBytes(kTrusted, "t", "") +
                         XattrBytes(kSecurity, "capability", value)});
  const auto odd = raw.Add({.mode = S_IFREG | 0644,
                            .layout = erofs::Layout::kChunkBased,
                            .xattrs = XattrBytes(static_cast<erofs::XattrIndex>(5), "x", "y")});
  const auto m = OpenBytes(WithRoot(raw, root, {{"f", file, kTypeFile}}));
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  std::vector<std::pair<std::string, std::string>> all;
  ASSERT_TRUE((*m)->ListXattrs({file}, [&](std::string_view name,
                                           Bytes bytes) { all.emplace_back(name, AsText(bytes)); })
                  .ok());
  const std::vector<std::pair<std::string, std::string>> expected{
      {"security.selinux", "label_t"},    {"user.big", std::string(60000, 'v')}, {"user.a", "1"},
      {"system.posix_acl_access", value}, {"system.posix_acl_default", "d"},     {"trusted.t", ""},
      {"security.capability", value}};
  EXPECT_EQ(all, expected);
  for (const auto& [name, bytes] : expected) EXPECT_EQ(*(*m)->GetXattr({file}, name), bytes);
  EXPECT_EQ((*m)->GetXattr({file}, "user.b").error().code(), Code::kNotFound);
  EXPECT_EQ((*m)->GetXattr({file}, "system.posix_acl_accessx").error().code(), Code::kNotFound);
  EXPECT_EQ((*m)->GetXattr((*m)->root(), "user.a").error().code(), Code::kNotFound);
  EXPECT_EQ((*m)->GetXattr({odd}, "user.a").error().code(), Code::kUnsupported);
}

TEST(TreeTest, WalkVisitsInOrderAndStopsWithTheCallersError) {
  RawImage raw;
  const auto root = raw.ReserveBlock();
  const auto sub = raw.ReserveBlock();
  const auto file = raw.Add({.mode = S_IFREG | 0644, .layout = erofs::Layout::kChunkBased});
  raw.PutDir(sub, root, {{"x", file, kTypeFile}});
  const auto m = OpenBytes(
      WithRoot(raw, root, {{"b", sub, kTypeDir}, {"a", file, kTypeFile}, {"c", file, kTypeFile}}));
  ASSERT_TRUE(m.ok());
  std::vector<std::string> paths;
  const auto collect = [&](const std::string& path, const Attributes&) -> Status {
    paths.push_back(path);
    return path == "/b/x" ? Status(Error(Code::kAborted, "enough")) : Status();
  };
  EXPECT_EQ(Outcome(Walk(**m, (*m)->root(), collect)), "aborted");
  EXPECT_EQ(paths, (std::vector<std::string>{"/", "/a", "/b", "/b/x"}));
  EXPECT_EQ(LookupPath(**m, "//b///x/")->value, file);
}

}  // namespace
}  // namespace davit::rafs
