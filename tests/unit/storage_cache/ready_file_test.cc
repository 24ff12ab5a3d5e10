// The durable bits against torn, lost and reordered writes, and against strange content.

#include "storage/cache/ready_file.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "tests/support/fake_blob/faulty_files.h"

namespace davit::storage {
namespace {

constexpr std::uint32_t kChunks = 100'000;  // four pages

ReadyFile::Subject Subject(std::uint8_t tag = 1) {
  ReadyFile::Subject subject{.identity = {}, .chunk_count = kChunks, .data_size = 1 << 30};
  subject.identity.bytes[0] = std::byte{tag};
  return subject;
}

TEST(ReadyFile, KeepsBits) {
  test::FaultyFiles files;
  ReadyFile first(*files.Open("ready"));
  EXPECT_FALSE(*first.Load(Subject()));
  ASSERT_TRUE(first.Create(Subject()).ok());
  const std::uint32_t set[] = {0, 63, 64, 40'000, kChunks - 1};
  ASSERT_TRUE(first.Update(set, {}).ok());
  const std::uint32_t clear[] = {64};
  ASSERT_TRUE(first.Update({}, clear).ok());
  ReadyFile second(*files.Open("ready"));
  ASSERT_TRUE(*second.Load(Subject()));
  EXPECT_TRUE(second.IsDurable(0) && second.IsDurable(63) && second.IsDurable(40'000) &&
              second.IsDurable(kChunks - 1));
  EXPECT_FALSE(second.IsDurable(64) || second.IsDurable(1));
  ReadyFile other(*files.Open("ready"));
  EXPECT_FALSE(*other.Load(Subject(2)));
}

TEST(ReadyFile, AnyPartOfAnUnsyncedUpdateMayBeLost) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    std::mt19937_64 random(seed);
    test::FaultyFiles files;
    auto file = std::make_unique<ReadyFile>(*files.Open("ready"));
    ASSERT_TRUE(file->Create(Subject()).ok());
    // A new file is durable with its first update.
    std::set<std::uint32_t> truth{7};
    const std::uint32_t first[] = {7};
    ASSERT_TRUE(file->Update(first, {}).ok());
    for (int round = 0; round < 6; ++round) {
      std::vector<std::uint32_t> set, clear;
      for (int i = 0; i < 50; ++i) set.push_back(static_cast<std::uint32_t>(random() % kChunks));
      for (const std::uint32_t chunk : truth) {
        if (random() % 4 == 0) clear.push_back(chunk);
      }
      std::erase_if(set, [&](std::uint32_t c) {
        return std::find(clear.begin(), clear.end(), c) != clear.end();
      });
      // Every other update is cut before its sync.
      const bool cut = random() % 2 == 0;
      std::set<std::uint32_t> after = truth;
      after.insert(set.begin(), set.end());
      for (const std::uint32_t c : clear) after.erase(c);
      if (!cut) {
        ASSERT_TRUE(file->Update(set, clear).ok());
        truth = after;
        continue;
      }
      files.FailNextSync();
      EXPECT_FALSE(file->Update(set, clear).ok());
      files.PowerCut(random());
      files.PowerOn();
      file = std::make_unique<ReadyFile>(*files.Open("ready"));
      ASSERT_TRUE(*file->Load(Subject()));
      // Page by page it is the old version or the new one.
      std::set<std::uint32_t> found;
      for (std::uint32_t c = 0; c < kChunks; ++c) {
        if (!file->IsDurable(c)) continue;
        ASSERT_TRUE(truth.contains(c) || after.contains(c));
        found.insert(c);
      }
      for (const std::uint32_t c : truth) ASSERT_TRUE(found.contains(c) || !after.contains(c));
      truth = found;
    }
  }
}

// Waiting for the disk before the first byte is read would buy nothing.
TEST(ReadyFile, ANewFileIsDurableWithItsFirstUpdate) {
  for (const bool updated : {false, true}) {
    test::FaultyFiles files;
    {
      ReadyFile file(*files.Open("ready"), true);
      ASSERT_TRUE(file.Invalidate().ok());
      ASSERT_TRUE(file.Create(Subject()).ok());
      const std::uint32_t set[] = {5};
      if (updated) {
        ASSERT_TRUE(file.Update(set, {}).ok());
      }
    }
    files.PowerCut(1);
    files.PowerOn();
    ReadyFile file(*files.Open("ready"));
    const bool known = *file.Load(Subject());
    EXPECT_TRUE(known || !updated);
    EXPECT_EQ(known && file.IsDurable(5), updated);
  }
}

TEST(ReadyFile, RandomContentSetsNoBit) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    test::FaultyFiles files;
    {
      ReadyFile file(*files.Open("ready"));
      ASSERT_TRUE(file.Create(Subject()).ok());
    }
    std::vector<std::byte> noise(4096 * 4);
    for (std::byte& b : noise) b = static_cast<std::byte>(random());
    ASSERT_TRUE((*files.Open("ready"))->WriteAt(4096, noise).ok());
    ReadyFile file(*files.Open("ready"));
    ASSERT_TRUE(*file.Load(Subject()));
    for (std::uint32_t c = 0; c < kChunks; ++c) ASSERT_FALSE(file.IsDurable(c));
  }
}

}  // namespace
}  // namespace davit::storage
