#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "rafs/builder/pax_record.h"
#include "tests/unit/rafs_builder/builder_fixture.h"

namespace davit::testing {
namespace {

class TarSourceTest : public BuilderTest {};

std::string Repeat(std::string_view text, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += text;
  return out;
}

TEST_F(TarSourceTest, KeepsContentAndAttributes) {
  const std::string big = PatternData(1, 3'000'000);
  TarWriter tar;
  tar.Dir("./", 01777).Dir("./etc/").File("./etc/passwd", "root:x:0:0\n", 04755);
  tar.File("./empty", "").File("./big", big).Symlink("./link", "../target");
  tar.Add({.name = "./dev", .type = '3', .mode = 0660, .major = 259, .minor = 70000});
  tar.Add({.name = "./blk", .type = '4', .mode = 0600, .major = 8, .minor = 17});
  tar.Add({.name = "./pipe", .type = '6', .mode = 0644});
  tar.Add({.name = "./ids", .uid = 70000, .gid = 4'000'000'000, .mtime = -86400});
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  EXPECT_EQ(image->size(), 10U);
  EXPECT_EQ(image->at("").mode, S_IFDIR | 01777U);
  EXPECT_EQ(image->at("").nlink, 3U);
  EXPECT_EQ(image->at("etc/passwd").mode, S_IFREG | 04755U);
  EXPECT_EQ(image->at("etc/passwd").content, "root:x:0:0\n");
  EXPECT_EQ(image->at("empty").content, "");
  EXPECT_EQ(image->at("big").content, big);
  EXPECT_EQ(image->at("link").target, "../target");
  EXPECT_EQ(image->at("link").mode, S_IFLNK | 0777U);
  EXPECT_EQ(image->at("dev").mode, S_IFCHR | 0660U);
  EXPECT_EQ(image->at("dev").rdev, static_cast<std::uint32_t>(makedev(259, 70000)));
  EXPECT_EQ(image->at("blk").rdev, static_cast<std::uint32_t>(makedev(8, 17)));
  EXPECT_EQ(image->at("pipe").mode, S_IFIFO | 0644U);
  EXPECT_EQ(image->at("ids").uid, 70000U);
  EXPECT_EQ(image->at("ids").gid, 4'000'000'000U);
  EXPECT_EQ(image->at("ids").mtime, -86400);
}

TEST_F(TarSourceTest, KeepsNegativeAndFractionalTimes) {
  TarWriter tar;
  tar.Add({.name = "a", .pax = {{"mtime", "1700000000.123456789"}}});
  tar.Add({.name = "b", .pax = {{"mtime", "-1.5"}}});
  tar.Add({.name = "c", .pax = {{"mtime", "-7"}}});
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  EXPECT_EQ(image->at("a").mtime, 1'700'000'000);
  EXPECT_EQ(image->at("a").mtime_nsec, 123'456'789U);
  EXPECT_EQ(image->at("b").mtime, -2);
  EXPECT_EQ(image->at("b").mtime_nsec, 500'000'000U);
  EXPECT_EQ(image->at("c").mtime, -7);
  EXPECT_EQ(image->at("c").mtime_nsec, 0U);
}

// libarchive gives "-0.5" and "0.5" as one and the same.
TEST_F(TarSourceTest, KeepsTheSignOfTimesJustBeforeTheEpoch) {
  using Time = std::pair<std::int64_t, std::int64_t>;
  for (const std::size_t size : {std::size_t{10}, std::size_t{600'000}}) {  // of what lies between
    TarWriter tar;
    const std::string between(size, 'b');
    tar.Add({.name = "after", .data = between, .pax = {{"mtime", "0.25"}}});
    tar.Add({.name = "before", .data = between, .pax = {{"path", "before"}, {"mtime", "-0.25"}}});
    tar.Add({.name = "none", .data = between});
    tar.Add({.name = std::string(200, 'g'),
             .data = between,
             .pax = {{"comment", "9 mtime=1"}, {"mtime", "-0.000000001"}},
             .gnu_long = true});
    tar.Add({.name = "other", .pax = {{"comment", "14 mtime=-0.5\n"}, {"mtime", "0.5"}}});
    tar.Add({.name = "link", .type = '2', .link = "before", .pax = {{"mtime", "-0.75"}}});
    // Longer than what is remembered of the stream: then the sign is lost, nothing else.
    tar.Add({.name = "long", .pax = {{"comment", std::string(900'000, 'c')}, {"mtime", "-0.5"}}});
    const auto image = RoundTrip(tar.Finish());
    ASSERT_OK(image);
    const auto time = [&](const std::string& name) {
      return Time(image->at(name).mtime, image->at(name).mtime_nsec);
    };
    EXPECT_EQ(time("after"), (Time{0, 250'000'000}));
    EXPECT_EQ(time("before"), (Time{-1, 750'000'000}));
    EXPECT_EQ(time("none"), (Time{0, 0}));
    EXPECT_EQ(time(std::string(200, 'g')), (Time{-1, 999'999'999}));
    EXPECT_EQ(time("other"), (Time{0, 500'000'000}));
    EXPECT_EQ(time("link"), (Time{-1, 250'000'000}));
    EXPECT_EQ(time("long"), (Time{0, 500'000'000}));
  }
}

TEST(PaxRecord, ReadsWhatIsThereAndNothingElse) {
  TarWriter tar;
  tar.Add({.name = "f", .pax = {{"mtime", "1"}, {"x", "y"}, {"mtime", "-0.5"}}});
  const std::string whole = tar.Finish();
  EXPECT_EQ(rafs::PaxRecord(whole, "mtime"), "-0.5");
  EXPECT_EQ(rafs::PaxRecord(whole, "x"), "y");
  EXPECT_EQ(rafs::PaxRecord(whole, "mtim"), "");
  EXPECT_EQ(rafs::PaxRecord("", "mtime"), "");
  for (std::size_t n = 0; n < 512 + 20; ++n) {  // cut in the header or in the records
    EXPECT_EQ(rafs::PaxRecord(whole.substr(0, n), "mtime"), "") << n;
  }
  for (const std::string records :
       {"", "0 mtime=1\n", "2 mtime=1\n", "99999999999999999999 mtime=1\n", "11 mtime=1",
        "11 mtime=1xx", "11mtime=1\n\n", "500 mtime=1\n", "-11 mtime=1\n"}) {
    TarWriter odd;
    odd.Add({.name = "pax", .type = 'x', .data = records});
    EXPECT_EQ(rafs::PaxRecord(odd.Finish(), "mtime"), "") << records;
  }
}

// Names are bytes: valid UTF-8 (composed and decomposed), Latin-1, and anything else.
TEST_F(TarSourceTest, KeepsNamesThatAreNotUtf8) {
  const std::vector<std::string> names = {"caf\xc3\xa9", "cafe\xcc\x81", "caf\xe9", "\xff\xfe",
                                          "\xc3",        "\xed\xa0\x80", "a\nb",    "tab\tname",
                                          "back\\slash", "\x01"};
  TarWriter tar;
  for (const std::string& name : names) {
    tar.File("plain/" + name, name);
    tar.Add({.name = "x", .data = name, .pax = {{"path", "pax/" + name}}});
    tar.Add(
        {.name = "x", .data = name, .pax = {{"hdrcharset", "BINARY"}, {"path", "bin/" + name}}});
    tar.Add(
        {.name = "x", .type = '2', .pax = {{"path", "sym/" + name}, {"linkpath", "to/" + name}}});
    tar.Add(
        {.name = "x", .type = '1', .pax = {{"path", "hard/" + name}, {"linkpath", "pax/" + name}}});
    tar.Add({.name = "gnu/" + Repeat("d", 120) + name, .data = name, .gnu_long = true});
  }
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  for (const std::string& name : names) {
    SCOPED_TRACE(ToHex(AsBytes(name)));
    for (const char* dir : {"plain/", "pax/", "bin/"}) {
      ASSERT_TRUE(image->contains(dir + name)) << dir;
      EXPECT_EQ(image->at(dir + name).content, name);
    }
    ASSERT_TRUE(image->contains("sym/" + name));
    EXPECT_EQ(image->at("sym/" + name).target, "to/" + name);
    ASSERT_TRUE(image->contains("hard/" + name));
    EXPECT_EQ(image->at("hard/" + name).id, image->at("pax/" + name).id);
    EXPECT_TRUE(image->contains("gnu/" + Repeat("d", 120) + name));
  }
}

TEST_F(TarSourceTest, KeepsLongNamesAndSortsOddOnes) {
  const std::string name255(255, 'n');
  std::string deep;
  for (int i = 0; i < 15; ++i) deep += std::string(250, static_cast<char>('a' + i)) + "/";
  TarWriter tar;
  tar.Add({.name = "d/" + name255, .data = "1", .gnu_long = true});
  tar.Add({.name = "x", .data = "2", .pax = {{"path", deep + "leaf"}}});
  const std::vector<std::string> odd = {" ", "!x", "#", "%", "+", ",", "-a", "...", "..a", ".a"};
  for (const std::string& name : odd) tar.File("d/" + name, name);
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  EXPECT_EQ(image->at("d/" + name255).content, "1");
  EXPECT_EQ(image->at(deep + "leaf").content, "2");
  for (const std::string& name : odd) EXPECT_EQ(image->at("d/" + name).content, name);
}

TEST_F(TarSourceTest, RefusesImpossibleNames) {
  const auto refused = [&](const TarEntry& entry, const std::string& mention) {
    TarWriter tar;
    tar.Add(entry);
    const auto image = RoundTrip(tar.Finish());
    ASSERT_FALSE(image.ok()) << mention;
    EXPECT_EQ(image.error().code(), Code::kInvalidArgument);
    EXPECT_NE(image.error().message().find(mention), std::string::npos) << image.error().message();
  };
  refused({.name = "a/../b"}, "'a/../b'");
  refused({.name = "../evil"}, "'../evil'");
  refused({.name = "x", .pax = {{"path", std::string(256, 'z')}}}, std::string(256, 'z'));
  refused({.name = "x", .pax = {{"path", Repeat("dir/", 1200) + "f"}}}, "limit is 4096");
  refused({.name = "link", .type = '1', .link = "../../etc/passwd"}, "'../../etc/passwd'");
  refused({.name = ".", .data = "x"}, "is the root");
}

TEST_F(TarSourceTest, KeepsXattrs) {
  const std::string capability("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00", 12);
  const std::string binary("a=b\n\0c\xff", 7);
  TarWriter tar;
  tar.Add(
      {.name = "ping",
       .data = "x",
       .pax = {{"SCHILY.xattr.security.capability", capability},
               {"SCHILY.xattr.security.selinux", std::string("system_u:object_r:bin_t:s0\0", 27)},
               {"SCHILY.xattr.user.binary", binary},
               {"SCHILY.xattr.user.empty", ""},
               {"SCHILY.xattr.trusted.t", "1"},
               {"SCHILY.xattr.com.apple.quarantine", "dropped"}}});
  tar.Add({.name = "la", .data = "x", .pax = {{"LIBARCHIVE.xattr.user.b64", "AAH/"}}});
  tar.Add({.name = "big",
           .data = "x",
           .pax = {{"SCHILY.xattr.user.big", PatternData(5, 65535)},
                   {"SCHILY.xattr.user.n" + std::string(200, 'n'), "v"}}});
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  const std::map<std::string, std::string> want = {
      {"security.capability", capability},
      {"security.selinux", std::string("system_u:object_r:bin_t:s0\0", 27)},
      {"user.binary", binary},
      {"user.empty", ""},
      {"trusted.t", "1"}};
  EXPECT_EQ(image->at("ping").xattrs, want);
  EXPECT_EQ(image->at("la").xattrs.at("user.b64"), std::string("\0\1\xff", 3));
  EXPECT_EQ(image->at("big").xattrs.at("user.big"), PatternData(5, 65535));
  EXPECT_EQ(image->at("big").xattrs.at("user.n" + std::string(200, 'n')), "v");
}

TEST_F(TarSourceTest, ExpandsSparseFiles) {
  const std::string data = PatternData(7, 512);
  TarWriter tar;
  // PAX 0.1: the map is an attribute.
  tar.Add({.name = "x",
           .data = data + data,
           .pax = {{"GNU.sparse.size", "5000000"},
                   {"GNU.sparse.numblocks", "2"},
                   {"GNU.sparse.map", "1048576,512,4999000,512"},
                   {"GNU.sparse.name", "pax01"}}});
  // PAX 1.0: the map is in front of the data.
  std::string map = "2\n4096\n512\n10000\n512\n";
  map.resize(512, '\0');
  tar.Add({.name = "x",
           .data = map + data + data,
           .pax = {{"GNU.sparse.major", "1"},
                   {"GNU.sparse.minor", "0"},
                   {"GNU.sparse.name", "pax10"},
                   {"GNU.sparse.realsize", "20000"}}});
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  std::string want(5'000'000, '\0');
  want.replace(1048576, 512, data).replace(4999000, 512, data);
  EXPECT_EQ(image->at("pax01").content, want);
  want.assign(20000, '\0');
  want.replace(4096, 512, data).replace(10000, 512, data);
  EXPECT_EQ(image->at("pax10").content, want);
}

TEST_F(TarSourceTest, LinksFilesForwardsAndBackwards) {
  TarWriter tar;
  tar.HardLink("early", "z/late").File("z/late", "content").HardLink("after", "./z/late");
  tar.HardLink("chain", "early").Symlink("sym", "t").HardLink("symlink2", "sym");
  tar.HardLink("early", "early");  // to itself
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  for (const char* name : {"early", "z/late", "after", "chain"}) {
    EXPECT_EQ(image->at(name).content, "content") << name;
    EXPECT_EQ(image->at(name).id, image->at("early").id) << name;
    EXPECT_EQ(image->at(name).nlink, 4U) << name;
  }
  EXPECT_EQ(image->at("symlink2").target, "t");
}

TEST_F(TarSourceTest, ManyForwardLinksTakeLinearTime) {
  TarWriter tar;
  constexpr int kLinks = 20000;
  for (int i = 0; i < kLinks; ++i) tar.HardLink(std::to_string(i), std::to_string(i + 1));
  tar.File(std::to_string(kLinks), "x");
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  EXPECT_EQ(image->at("0").nlink, kLinks + 1U);
}

TEST_F(TarSourceTest, LinkWithoutTargetIsAnErrorAtTheEnd) {
  TarWriter tar;
  tar.HardLink("a", "gone").HardLink("cycle1", "cycle2").HardLink("cycle2", "cycle1");
  const auto tree = Build(tar.Finish());
  ASSERT_OK(tree);
  const auto image = Read(*tree);
  ASSERT_FALSE(image.ok());
  EXPECT_NE(image.error().message().find("'gone'"), std::string::npos);
}

TEST_F(TarSourceTest, LastEntryOfAPathWins) {
  TarWriter tar;
  tar.File("f", "one").HardLink("f-old", "f").File("./f", "two");
  tar.Dir("d", 0700).File("d/x", "x").Dir("d", 0711);
  tar.Dir("gone").File("gone/x", "x").File("gone", "now a file");
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  EXPECT_EQ(image->at("f").content, "two");
  EXPECT_EQ(image->at("f-old").content, "one");
  EXPECT_EQ(image->at("d").mode & 07777U, 0711U);
  EXPECT_EQ(image->at("d/x").content, "x");
  EXPECT_EQ(image->at("gone").content, "now a file");
  EXPECT_FALSE(image->contains("gone/x"));
}

TEST_F(TarSourceTest, MakesMissingParentsAndFollowsSymlinkedOnes) {
  TarWriter tar;
  tar.File("a/b/c/file", "1").Dir("usr").Dir("usr/lib").Symlink("lib", "usr/lib");
  tar.File("lib/x.so", "2").Symlink("abs", "/usr/../usr/lib/").File("abs/y.so", "3");
  tar.Symlink("loop", "loop");
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  EXPECT_EQ(image->at("a/b").mode, S_IFDIR | 0755U);
  EXPECT_EQ(image->at("a/b").uid, 0U);
  EXPECT_EQ(image->at("usr/lib/x.so").content, "2");
  EXPECT_EQ(image->at("usr/lib/y.so").content, "3");
  EXPECT_EQ(image->at("lib").target, "usr/lib");
  EXPECT_TRUE(image->at("").xattrs.empty()) << "no markers in images";

  tar.File("loop/x", "4");
  EXPECT_FALSE(RoundTrip(tar.Finish()).ok());
  TarWriter under_file;
  under_file.File("f", "x").File("f/x", "y");
  const auto bad = RoundTrip(under_file.Finish());
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.error().message().find("'f/x'"), std::string::npos) << bad.error().message();
}

TEST_F(TarSourceTest, TakesArchivesWithoutTrailerAndEmptyOnes) {
  TarWriter tar;
  tar.File("a", "1").File("b", std::string(512, 'b'));
  const auto image = RoundTrip(tar.Finish(false));
  ASSERT_OK(image);
  EXPECT_EQ(image->at("b").content, std::string(512, 'b'));
  EXPECT_EQ(blobs_.blobs.size(), 1U);
  for (const std::string& empty :
       {std::string(), std::string(512, '\0'), std::string(10240, '\0')}) {
    const auto nothing = RoundTrip(empty);
    ASSERT_OK(nothing);
    EXPECT_EQ(nothing->size(), 1U);
    EXPECT_TRUE(bootstrap_.used_blobs.empty());
  }
  EXPECT_EQ(blobs_.blobs.size(), 1U) << "an empty layer has no blob";
}

TEST_F(TarSourceTest, ReportsDamage) {
  TarWriter tar;
  tar.File("first", "1").File("second", std::string(100000, 'x'));
  std::string cut = tar.Finish();
  cut.resize(50000);
  const auto truncated = RoundTrip(cut);
  ASSERT_FALSE(truncated.ok());
  EXPECT_EQ(truncated.error().code(), Code::kDataLoss);
  EXPECT_NE(truncated.error().message().find("second"), std::string::npos);

  std::string broken = tar.Finish();
  broken[1024 + 150] = 'Z';  // checksum of the second header
  EXPECT_FALSE(RoundTrip(broken).ok());
  EXPECT_FALSE(RoundTrip("this is no tar, but long enough" + std::string(2000, 'q')).ok());
  EXPECT_TRUE(blobs_.blobs.empty());
}

// 9 exabytes of holes must not be taken at their word.
TEST_F(TarSourceTest, RefusesAbsurdSizesQuickly) {
  TarWriter tar;
  tar.Add({.name = "x",
           .data = "",
           .pax = {{"GNU.sparse.size", "9000000000000000000"},
                   {"GNU.sparse.numblocks", "1"},
                   {"GNU.sparse.map", "0,0"},
                   {"GNU.sparse.name", "huge"}}});
  const auto image = RoundTrip(tar.Finish());
  ASSERT_FALSE(image.ok());
  EXPECT_EQ(image.error().code(), Code::kInvalidArgument) << image.error().message();
}

TEST_F(TarSourceTest, ErrorsOfTheStreamAndCancellationComeThrough) {
  class Failing final : public codec::ByteStream {
    Result<std::size_t> Read(MutableBytes) override {
      return Error(Code::kUnavailable, "the registry is away");
    }
  };
  auto tree =
      rafs::BuildTar({}, std::make_unique<Failing>(), 0, options_, dir_->path(), blobs_, nullptr);
  ASSERT_FALSE(tree.ok());
  EXPECT_EQ(tree.error().code(), Code::kUnavailable);

  std::stop_source stop;
  stop.request_stop();
  TarWriter tar;
  tar.File("f", "x");
  tree = rafs::BuildTar({.stop = stop.get_token()}, StringStream(tar.Finish()), 0, options_,
                        dir_->path(), blobs_, nullptr);
  ASSERT_FALSE(tree.ok());
  EXPECT_EQ(tree.error().code(), Code::kCancelled);
  EXPECT_TRUE(ListDirectory(dir_->path())->empty()) << "temporary files must not stay";
}

}  // namespace
}  // namespace davit::testing
