// A million files: opening costs neither time nor memory, a lookup is a binary search.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <random>

#include "common/base/fd.h"
#include "tests/unit/rafs_metadata/helpers.h"

namespace davit::rafs {
namespace {

using testing::RawImage;
constexpr int kFilesPerDir = 100'000;

// Ten make a million files; DAVIT_SCALE_DIRS=100 is the most that an image may hold.
int Dirs() {
  const char* set = std::getenv("DAVIT_SCALE_DIRS");
  return set != nullptr ? std::stoi(set) : 10;
}

// A linear lookup takes milliseconds.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::chrono::microseconds kLookupLimit{500};
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr std::chrono::microseconds kLookupLimit{500};
#else
constexpr std::chrono::microseconds kLookupLimit{50};
#endif
#else
constexpr std::chrono::microseconds kLookupLimit{50};
#endif

/// Private memory of this process in KiB.
long PrivateKib() {
  std::ifstream smaps("/proc/self/smaps_rollup");
  long total = 0;
  for (std::string line; std::getline(smaps, line);) {
    if (line.starts_with("Private_")) total += std::stol(line.substr(line.find(':') + 1));
  }
  return total;
}

std::string FileName(int i) { return "file-" + std::to_string(i * 7919 % kFilesPerDir); }

void WriteMillionFiles(const std::string& path) {
  RawImage raw(1 << 20);
  raw.AddBlob(1 << 20, 1ULL << 40);
  const auto root = raw.ReserveBlock();
  std::vector<RawImage::Entry> dirs;
  raw.super.inos = 1;
  for (int d = 0; d < Dirs(); ++d) {
    const auto dir = raw.ReserveBlock();
    std::vector<RawImage::Entry> files;
    files.reserve(kFilesPerDir);
    for (int i = 0; i < kFilesPerDir; ++i) {
      const auto chunk = static_cast<std::uint32_t>(d * kFilesPerDir + i);
      const auto nid = raw.Add(
          raw.File(100, {v6::EncodeChunkIndex({0, chunk, std::uint64_t{chunk} * 4096}, 12)}));
      files.push_back({FileName(i), nid, kTypeFile});
    }
    raw.PutDir(dir, root, std::move(files));
    dirs.push_back({"dir" + std::to_string(d), dir, kTypeDir});
    raw.super.inos += kFilesPerDir + 1;
  }
  raw.PutDir(root, root, dirs);
  ASSERT_TRUE(WriteFileAtomic(path, AsBytes(raw.Build())).ok());
}

TEST(ScaleTest, AMillionFiles) {
  const auto dir = TempDir::Create("rafs-scale");
  ASSERT_TRUE(dir.ok());
  const std::string path = dir->path() + "/image.boot";
  WriteMillionFiles(path);
  const long before = PrivateKib();
  auto start = std::chrono::steady_clock::now();
  const auto m = Metadata::OpenFile(path);
  const auto open_time = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(m.ok()) << m.error().ToString();
  EXPECT_EQ((*m)->info().inodes, 1 + static_cast<unsigned>(Dirs()) * (kFilesPerDir + 1U));
  EXPECT_LT(open_time, std::chrono::milliseconds(50));

  // 100 000 directories' worth of comparisons would take minutes if lookups were linear.
  const auto parent = LookupPath(**m, "/dir7");
  ASSERT_TRUE(parent.ok());
  std::mt19937 random(1);
  start = std::chrono::steady_clock::now();
  for (int i = 0; i < kFilesPerDir; ++i) {
    const auto inode = (*m)->Lookup(*parent, FileName(static_cast<int>(random() % kFilesPerDir)));
    ASSERT_TRUE(inode.ok());
  }
  const auto lookup_time = std::chrono::steady_clock::now() - start;
  EXPECT_LT(lookup_time / kFilesPerDir, kLookupLimit);
  EXPECT_LT(PrivateKib() - before, 20 * 1024);
  RecordProperty("open_us", static_cast<int>(open_time / std::chrono::microseconds(1)));
  RecordProperty("lookup_ns",
                 static_cast<int>(lookup_time / kFilesPerDir / std::chrono::nanoseconds(1)));
}

}  // namespace
}  // namespace davit::rafs
