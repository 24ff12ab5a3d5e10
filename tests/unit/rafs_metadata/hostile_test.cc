// Bytes that nobody wrote with good intentions. Nothing may crash, hang or allocate without bound;
// run under ASan as well.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <random>

#include "tests/unit/rafs_metadata/helpers.h"
#include "tests/unit/rafs_metadata/walk_everything.h"

namespace davit::rafs {
namespace {

using testing::RawImage;
using testing::XattrBytes;

const auto kIgnore = [](const std::string&, const Attributes&) -> Status { return {}; };

TEST(HostileTest, CyclesAreFound) {
  RawImage raw;
  const auto root = raw.ReserveBlock();
  const auto sub = raw.ReserveBlock();
  raw.PutDir(sub, root, {{"up", root, kTypeDir}});
  raw.PutDir(root, root, {{"sub", sub, kTypeDir}});
  const auto m = OpenBytes(raw.Build());
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(Outcome(Walk(**m, (*m)->root(), kIgnore)), "data_loss");
}

TEST(HostileTest, DirectoriesThatShareBlocksDoNotMultiplyWork) {
  // 400 directories, each of which claims the same 64 blocks of files: 25 million entries.
  RawImage raw;
  const auto root = raw.ReserveBlock();
  const auto file = raw.Add({.mode = S_IFREG | 0644, .layout = erofs::Layout::kChunkBased});
  std::vector<RawImage::Entry> files;
  for (int i = 0; i < 15000; ++i) files.push_back({"f" + std::to_string(i), file, kTypeFile});
  const std::string content = testing::EncodeDir(files);
  const auto block = raw.Blocks(content);
  std::vector<RawImage::Entry> dirs;
  for (int i = 0; i < 400; ++i) {
    const auto dir = raw.Add({.mode = S_IFDIR | 0755, .size = content.size(), .u = block});
    dirs.push_back({"d" + std::to_string(i), dir, kTypeDir});
  }
  raw.PutDir(root, root, dirs);
  const auto m = OpenBytes(raw.Build());
  ASSERT_TRUE(m.ok());
  std::uint64_t visited = 0;
  const auto count = [&](const std::string&, const Attributes&) -> Status {
    ++visited;
    return {};
  };
  EXPECT_EQ(Outcome(Walk(**m, (*m)->root(), count)), "data_loss");
  EXPECT_LE(visited, (*m)->image().size() / 13 + 1);
}

TEST(HostileTest, DeepTreesEnd) {
  RawImage raw;
  const auto root = raw.ReserveBlock();
  std::vector<std::uint64_t> dirs{root};
  for (int i = 0; i < 5000; ++i) dirs.push_back(raw.Reserve(256));
  for (std::size_t i = 0; i < dirs.size(); ++i) {
    std::vector<RawImage::Entry> entries;
    if (i + 1 < dirs.size()) entries.push_back({"d", dirs[i + 1], kTypeDir});
    raw.PutDir(dirs[i], dirs[i == 0 ? 0 : i - 1], entries);
  }
  const auto m = OpenBytes(raw.Build());
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(Outcome(Walk(**m, (*m)->root(), kIgnore)), "data_loss");
}

/// A directory whose only block is given as bytes.
std::string ListOutcome(std::string block, std::uint64_t size) {
  RawImage raw;
  const auto root = raw.ReserveBlock();
  const auto bad = raw.Add({.mode = S_IFDIR | 0755, .size = size, .u = raw.Blocks(block)});
  raw.PutDir(root, root, {{"bad", bad, kTypeDir}});
  const auto m = OpenBytes(raw.Build());
  if (!m) return "open " + Outcome(m);
  static_cast<void>((*m)->Lookup({bad}, "x"));
  return Outcome((*m)->ListDir({bad}, 0, [](const DirEntry&, std::uint64_t) { return true; }));
}

std::string DirBytes(std::initializer_list<erofs::Dirent> dirents, std::string_view names) {
  std::string out;
  for (const auto& d : dirents) out.append(reinterpret_cast<const char*>(&d), sizeof d);
  return out.append(names);
}

TEST(HostileTest, DamagedDirectoryBlocks) {
  const std::string good = DirBytes({{128, 24, 2, 0}, {128, 25, 2, 0}}, "ab");
  EXPECT_EQ(ListOutcome(good, 26), "ok");
  EXPECT_EQ(ListOutcome(good, 4096), "ok");  // NULs behind the last name
  EXPECT_EQ(ListOutcome(good, 25), "data_loss");
  EXPECT_EQ(ListOutcome(good, 11), "data_loss");
  EXPECT_EQ(ListOutcome(good, 1ULL << 40), "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{128, 0, 2, 0}}, "a"), 13), "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{128, 13, 2, 0}}, "aa"), 14), "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{128, 4092, 2, 0}}, "a"), 13), "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{128, 24, 2, 0}, {128, 12, 2, 0}}, "ab"), 26), "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{128, 24, 2, 0}, {128, 24, 2, 0}}, "ab"), 26), "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{128, 12, 2, 0}}, "a/b"), 15), "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{128, 24, 2, 0}, {128, 26, 2, 0}}, std::string("\0bc", 3)), 27),
            "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{128, 12, 2, 0}}, std::string(256, 'n')), 268), "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{0, 12, 2, 0}}, "a"), 13), "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{~0ULL, 12, 0, 0}}, "a"), 13), "data_loss");
  EXPECT_EQ(ListOutcome(DirBytes({{128, 12, 200, 0}}, "a"), 13), "ok");  // the inode knows
}

TEST(HostileTest, DamagedXattrsAndLinks) {
  RawImage raw;
  const auto root = raw.ReserveBlock();
  raw.PutDir(root, root, {});
  raw.super.xattr_blkaddr = 0xFFFF'FFFF;
  const auto shared =
      raw.Add({.mode = S_IFREG | 0644, .shared_xattrs = {0xFFFF'FFFF, 3, 4, 5, 6, 7, 8}});
  std::string truncated = XattrBytes(erofs::XattrIndex::kUser, "a", "bcdef");
  truncated[0] = '\xff';
  const auto longer = raw.Add({.mode = S_IFREG | 0644, .xattrs = truncated});
  const auto link = raw.Add({.mode = S_IFLNK | 0777, .size = 5000, .u = 33});
  const auto far = raw.Add({.mode = S_IFLNK | 0777, .size = 10, .u = 0xFFFF'FFFF});
  const auto chunked =
      raw.Add({.mode = S_IFLNK | 0777, .size = 10, .layout = erofs::Layout::kChunkBased});
  const auto whole_tail =
      raw.Add({.mode = S_IFDIR | 0755, .size = 4096, .layout = erofs::Layout::kInline});
  const auto no_type = raw.Add({.mode = 0644});
  const auto m = OpenBytes(raw.Build());
  ASSERT_TRUE(m.ok());
  const auto list = [&](std::uint64_t nid) {
    return Outcome((*m)->ListXattrs({nid}, [](std::string_view, Bytes) {}));
  };
  EXPECT_EQ(list(shared), "data_loss");
  EXPECT_EQ(list(longer), "data_loss");
  EXPECT_EQ(Outcome((*m)->ReadLink({link})), "data_loss");
  EXPECT_EQ(Outcome((*m)->ReadLink({far})), "data_loss");
  EXPECT_EQ(Outcome((*m)->ReadLink({chunked})), "data_loss");
  EXPECT_EQ(Outcome((*m)->Lookup({whole_tail}, "x")), "data_loss");
  EXPECT_EQ(Outcome((*m)->Stat({no_type})), "data_loss");
  EXPECT_EQ(Outcome((*m)->Stat({~0ULL / 32})), "data_loss");
}

TEST(HostileTest, WhatIsNoV6BootstrapIsNamed) {
  EXPECT_EQ(Outcome(OpenBytes("")), "data_loss");
  EXPECT_EQ(Outcome(OpenBytes(std::string(8192, '\0'))), "data_loss");
  const auto v5 = OpenBytes("SFAR" + std::string(8192, '\0'));
  EXPECT_EQ(Outcome(v5), "unsupported");
  EXPECT_NE(v5.error().message().find("v5"), std::string::npos);
}

/// A small image with one of everything.
std::string Sample() {
  RawImage raw(4096);
  raw.AddBlob(10, 1 << 20);
  const auto root = raw.ReserveBlock();
  const auto sub = raw.ReserveBlock();
  const auto file = raw.Add(raw.File(10000, {v6::EncodeChunkIndex({0, 0, 0}, 12),
                                             v6::EncodeChunkIndex({0, 1, 4096}, 12),
                                             {0, 0, 0xFFFF'FFFF}}));
  const auto link = raw.Add(
      {.mode = S_IFLNK | 0777, .size = 4, .layout = erofs::Layout::kInline, .tail = "file"});
  std::vector<RawImage::Entry> many;
  for (int i = 0; i < 400; ++i) many.push_back({"n" + std::to_string(i), file, kTypeFile});
  raw.PutDir(sub, root, many, {.xattrs = XattrBytes(erofs::XattrIndex::kUser, "a", "b")});
  raw.PutDir(root, root,
             {{"sub", sub, kTypeDir}, {"file", file, kTypeFile}, {"l", link, kTypeLink}});
  raw.prefetch = {static_cast<std::uint32_t>(file)};
  for (std::uint32_t i = 0; i < 2; ++i) {
    v6::ChunkRecord record{};
    record.chunk_index = i;
    record.uncompressed_size = 4096;
    record.uncompressed_offset = i * 4096;
    raw.chunks.push_back(record);
  }
  return raw.Build();
}

TEST(HostileTest, FlippedBytesNeverCrash) {
  const std::string sample = Sample();
  ASSERT_EQ(Outcome(WalkEverything(AsBytes(sample))), "ok");
  std::mt19937 random(20261124);
  // Where something is: zeros in between would only dilute the test.
  std::vector<std::size_t> used;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    if (sample[i] != '\0') used.push_back(i);
  }
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string image = sample;
    for (unsigned flips = 1 + random() % 4; flips > 0; --flips) {
      const std::size_t at = used[random() % used.size()] + random() % 8;
      image[at % image.size()] = static_cast<char>(random());
    }
    refused += WalkEverything(AsBytes(image)).ok() ? 0 : 1;
  }
  EXPECT_GT(refused, 100);
  for (std::size_t size = 0; size < sample.size(); size += 509) {
    EXPECT_FALSE(WalkEverything(AsBytes(sample).first(size)).ok()) << size;
  }
}

}  // namespace
}  // namespace davit::rafs
