#include "rafs/fs/filesystem.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <thread>

#include "rafs/fs/extents.h"
#include "tests/support/fake_image/fake_image.h"

namespace davit::rafs {
namespace {

using testing::FakeImage;

std::string ReadText(const Filesystem& fs, std::uint64_t inode, std::uint64_t offset,
                     std::size_t size) {
  std::string out(size, '?');
  const auto got = fs.Read(Context(), {inode}, offset, std::as_writable_bytes(std::span(out)));
  if (!got) return "error: " + got.error().message();
  return out.substr(0, *got);
}

TEST(FilesystemTest, ReadsWhatTheExtentsSay) {
  FakeImage image;
  const auto first = image.File("a", "first file");
  const auto second = image.File("b", "second file");
  const auto hole = image.Extent("hole", 0, 10, true);
  const auto dir = image.Dir("dir");
  const auto fs = image.TakeFilesystem();
  EXPECT_EQ(ReadText(*fs, first, 0, 100), "first file");
  EXPECT_EQ(ReadText(*fs, second, 7, 4), "file");
  EXPECT_EQ(ReadText(*fs, second, 7, 5), "file") << "short at the end";
  EXPECT_EQ(ReadText(*fs, second, 11, 5), "");
  EXPECT_EQ(ReadText(*fs, second, ~0ULL, 5), "");
  EXPECT_EQ(ReadText(*fs, second, 0, 0), "");
  EXPECT_EQ(ReadText(*fs, hole, 3, 100), std::string(7, '\0'));
  std::byte byte{};
  const auto of_dir = fs->Read(Context(), {dir}, 0, {&byte, 1});
  ASSERT_FALSE(of_dir.ok());
  EXPECT_EQ(ToErrno(of_dir.error()), EISDIR);
}

TEST(FilesystemTest, OpensABlobOnceAndTriesAgainAfterAnError) {
  FakeImage image;
  const auto file = image.File("a", "content");
  const auto fs = image.TakeFilesystem();
  EXPECT_EQ(image.opens(), 0);
  image.FailOpens(Error(Code::kUnavailable, "not yet"));
  EXPECT_EQ(ReadText(*fs, file, 0, 10), "error: not yet");
  EXPECT_EQ(ReadText(*fs, file, 0, 10), "error: not yet");
  EXPECT_EQ(image.opens(), 2);
  image.FailOpens(std::nullopt);
  std::vector<std::thread> readers;
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back([&] { EXPECT_EQ(ReadText(*fs, file, 0, 10), "content"); });
  }
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(image.opens(), 3);
  const auto blob = fs->Blob(0);
  ASSERT_TRUE(blob.ok());
  EXPECT_EQ(blob->get(), &image.blob());
  const auto past = fs->Blob(1);
  ASSERT_FALSE(past.ok());
  EXPECT_EQ(past.error().code(), Code::kNotFound);
}

TEST(FilesystemTest, ContentPastTheBlobIsDamage) {
  FakeImage image;
  image.File("a", std::string(100, 'x'));
  const auto outside = image.Extent("outside", 4000, 200);  // the blob has 4096 bytes
  const auto far = image.Extent("far", ~0ULL - 50, 100);
  const auto fs = image.TakeFilesystem();
  for (const auto inode : {outside, far}) {
    std::string out(100, '?');
    const auto read = fs->Read(Context(), {inode}, 50, std::as_writable_bytes(std::span(out)));
    ASSERT_FALSE(inode == far && read.ok());
    std::vector<Piece> pieces;
    const Status located = fs->Locate({inode}, 0, 200, pieces);
    ASSERT_FALSE(located.ok());
    EXPECT_EQ(located.error().code(), Code::kDataLoss);
    EXPECT_FALSE(located.error().hint().empty());
  }
}

TEST(FilesystemTest, ExtentsWithGapsOverlapsAndOverflowsAreDamage) {
  const auto check = [](std::uint64_t file_offset, std::uint64_t length, std::uint64_t blob_offset,
                        std::uint64_t expected) {
    return CheckExtent({7},
                       {.file_offset = file_offset,
                        .length = length,
                        .blob = 0,
                        .blob_offset = blob_offset},
                       expected)
        .ok();
  };
  EXPECT_TRUE(check(10, 5, 0, 10));
  EXPECT_FALSE(check(11, 5, 0, 10));
  EXPECT_FALSE(check(9, 5, 0, 10));
  EXPECT_FALSE(check(10, 0, 0, 10));
  EXPECT_FALSE(check(10, ~0ULL, 0, 10));
  EXPECT_FALSE(check(10, 5, ~0ULL - 3, 10));
}

TEST(FilesystemTest, WaitsWithoutABufferAndEndsWithTheContext) {
  FakeImage image;
  const auto file = image.File("a", "content");
  const auto fs = image.TakeFilesystem();
  std::vector<Piece> pieces;
  ASSERT_TRUE(fs->Locate({file}, 0, 100, pieces).ok());
  ASSERT_EQ(pieces.size(), 1U);
  EXPECT_TRUE(Filesystem::IsLocal(pieces));
  image.blob().Withhold();
  EXPECT_FALSE(Filesystem::IsLocal(pieces));
  std::stop_source stop;
  Context ctx;
  ctx.stop = stop.get_token();
  std::thread waiter([&] {
    const Status waited = fs->Ensure(ctx, InodeId{file}, {0, 100});
    ASSERT_FALSE(waited.ok());
    EXPECT_EQ(waited.error().code(), Code::kCancelled);
  });
  ASSERT_TRUE(image.blob().AwaitWaiting(1));
  stop.request_stop();
  waiter.join();
  image.blob().Release();
  EXPECT_TRUE(fs->Ensure(Context(), InodeId{file}, {0, 100}).ok());
}

TEST(FilesystemTest, CopyRefusesASmallBuffer) {
  FakeImage image;
  const auto file = image.File("a", "content");
  const auto fs = image.TakeFilesystem();
  std::vector<Piece> pieces;
  ASSERT_TRUE(fs->Locate({file}, 0, 100, pieces).ok());
  std::byte small[3];
  EXPECT_FALSE(Filesystem::Copy(Context(), pieces, small).ok());
}

TEST(FilesystemTest, RangesOfASubtree) {
  FakeImage image;
  image.Extent("top", 0, 4096);
  image.Extent("d/one", 8192, 100);
  image.Extent("d/two", 8292, 50);  // goes on where the one before ends: joined
  image.Extent("d/x/three", 4096, 4096);
  image.Extent("d/x/zeros", 0, 500, true);
  image.File("pad", std::string(16384, 'p'));
  image.HardLink("d/x/zz", "d/one");  // known already
  const auto dir = image.Dir("empty");
  const auto fs = image.TakeFilesystem();
  const auto d = fs->metadata().Lookup(fs->metadata().root(), "d");
  ASSERT_TRUE(d.ok());
  const auto ranges = fs->Ranges(*d);
  ASSERT_TRUE(ranges.ok()) << ranges.error().ToString();
  using Range = std::pair<std::uint32_t, ByteRange>;
  EXPECT_EQ(*ranges, (std::vector<Range>{{0, {8192, 150}}, {0, {4096, 4096}}}));
  const auto file = fs->metadata().Lookup(fs->metadata().root(), "top");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(*fs->Ranges(*file), (std::vector<Range>{{0, {0, 4096}}}));
  EXPECT_TRUE(fs->Ranges(InodeId{dir})->empty());
  EXPECT_FALSE(fs->Ranges(InodeId{99'999}).ok());
}

}  // namespace
}  // namespace davit::rafs
