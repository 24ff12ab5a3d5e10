// fsck.erofs, which knows nothing of RAFS, judges every bootstrap and extracts the files from the
// uncompressed blobs; and large builds stay within their memory.

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/unit/rafs_builder/builder_fixture.h"

namespace davit::testing {
namespace {

struct Shape {
  const char* name;
  codec::Algorithm compressor;
  DigestAlgorithm digester;
  std::uint32_t chunk_size, batch_size;
  bool inline_bootstrap;
};

class FsckTest : public BuilderTest, public ::testing::WithParamInterface<Shape> {
 protected:
  void SetUp() override {
    if (std::system("command -v fsck.erofs > /dev/null") != 0) {
      GTEST_SKIP() << "fsck.erofs is missing: apt-get install erofs-utils";
    }
    BuilderTest::SetUp();
    const Shape& shape = GetParam();
    options_.compressor = shape.compressor;
    options_.digester = shape.digester;
    options_.chunk_size = shape.chunk_size;
    options_.batch_size = shape.batch_size;
    options_.inline_bootstrap = shape.inline_bootstrap;
  }

  /// Writes boot and one device per blob; the arguments for fsck.erofs.
  Result<std::string> WriteDevices() {
    const auto owner = std::make_shared<std::string>(bootstrap_.bytes);
    DAVIT_TRY_ASSIGN(const auto metadata, rafs::Metadata::Open(AsBytes(*owner), owner));
    std::string arguments;
    for (std::uint32_t b = 0; b < metadata->blobs().size(); ++b) {
      const std::string path = blobs_.blobs[bootstrap_.used_blobs[b]].path;
      DAVIT_TRY_ASSIGN(const std::string device, UncompressedBlob(*metadata, b, path));
      const std::string file = dir_->path() + "/device" + std::to_string(b);
      DAVIT_TRY(WriteFileAtomic(file, AsBytes(device)));
      arguments += " --device=" + file;
    }
    DAVIT_TRY(WriteFileAtomic(dir_->path() + "/boot", AsBytes(bootstrap_.bytes)));
    return arguments + " " + dir_->path() + "/boot";
  }
};

TarWriter LowerLayer() {
  TarWriter tar;
  tar.Dir("./").File("./a", "lower").File("./gone", "x").Dir("./d").File("./d/old", "x");
  for (int i = 0; i < 500; ++i)
    tar.File("./small/" + std::to_string(i), PatternData(7, 100 + 9UL * static_cast<unsigned>(i)));
  for (const std::size_t size : std::initializer_list<std::size_t>{
           4095, 4096, 4097, 65536, 1'048'576, 1'048'577, 3'000'000}) {
    tar.File("./sizes/" + std::to_string(size), PatternData(size, size));
  }
  for (const char* name : {" ", "!x", "#", "%", "+", ",", "-a"})
    tar.File(std::string("./odd/") + name, name);
  tar.Add({.name = "./odd/" + std::string(255, 'n'), .data = "255", .gnu_long = true});
  for (int i = 0; i < 900; ++i) tar.File("./many/entry-number-" + std::to_string(i), "");
  tar.Symlink("./sym", "a").HardLink("./hard", "./a");
  tar.Add({.name = "./fifo", .type = '6'}).Add({.name = "./empty-dir", .type = '5', .mode = 0700});
  tar.Add({.name = "./xattr",
           .data = "x",
           .pax = {{"SCHILY.xattr.user.k", "v"}, {"SCHILY.xattr.user.big", PatternData(1, 9000)}}});
  return tar;
}

TEST_P(FsckTest, AcceptsAndExtractsTheMergedImage) {
  auto tree = Build(LowerLayer().Finish(), 0);
  ASSERT_OK(tree);
  TarWriter upper;
  upper.Dir("./")
      .File(".wh.gone", "")
      .File("d/.wh..wh..opq", "")
      .File("d/new", PatternData(3, 777'777));
  auto second = Build(upper.Finish(), 1);
  ASSERT_OK(second);
  ASSERT_OK(rafs::ApplyLayer(*tree, *std::move(second)));
  const auto image = Read(*tree);
  ASSERT_OK(image);
  ASSERT_EQ(bootstrap_.used_blobs.size(), 2U);
  const auto arguments = WriteDevices();
  ASSERT_OK(arguments);
  const std::string out = dir_->path() + "/out";
  const std::string command =
      "fsck.erofs -d1 --extract=" + out + *arguments + " > " + dir_->path() + "/log 2>&1";
  const int status = std::system(command.c_str());
  EXPECT_EQ(status, 0) << ReadFile(dir_->path() + "/log").value_or("");
  std::size_t files = 0;
  for (const auto& [path, node] : *image) {
    const std::filesystem::path extracted = out + "/" + path;
    struct stat st;
    // fsck.erofs does not make sockets and leaves the names of fifos to mknod.
    ASSERT_EQ(::lstat(extracted.c_str(), &st), 0) << path;
    EXPECT_EQ(st.st_mode & S_IFMT, node.mode & S_IFMT) << path;
    if (!S_ISREG(node.mode)) continue;
    ++files;
    const auto content = ReadFile(extracted, 1ULL << 30);
    ASSERT_OK(content);
    EXPECT_TRUE(*content == node.content) << path;
  }
  EXPECT_GT(files, 1400U);
}

TEST_P(FsckTest, AcceptsTheEmptyImage) {
  const auto image = RoundTrip("");
  ASSERT_OK(image);
  const auto arguments = WriteDevices();
  ASSERT_OK(arguments);
  const std::string command = "fsck.erofs" + *arguments + " > " + dir_->path() + "/log 2>&1";
  EXPECT_EQ(std::system(command.c_str()), 0) << ReadFile(dir_->path() + "/log").value_or("");
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, FsckTest,
    ::testing::Values(
        Shape{"zstd_1M", codec::Algorithm::kZstd, DigestAlgorithm::kBlake3, 1U << 20, 0, true},
        Shape{"lz4_4K", codec::Algorithm::kLz4Block, DigestAlgorithm::kSha256, 4096, 0, false},
        Shape{"none_64K", codec::Algorithm::kNone, DigestAlgorithm::kBlake3, 65536, 0, false},
        Shape{"zstd_batch", codec::Algorithm::kZstd, DigestAlgorithm::kSha256, 1U << 20, 1U << 18,
              true},
        Shape{"lz4_16M", codec::Algorithm::kLz4Block, DigestAlgorithm::kBlake3, 16U << 20, 0,
              true}),
    [](const auto& param) { return std::string(param.param.name); });

// Many small files and a few large ones through a source that makes them up as it is read.
class GeneratedTar final : public codec::ByteStream {
 public:
  explicit GeneratedTar(int files) : files_(files) {}
  Result<std::size_t> Read(MutableBytes out) override {
    while (at_ == buffer_.size()) {
      if (next_ > files_) return 0U;
      TarWriter tar;
      const auto seed = static_cast<std::uint64_t>(next_);
      if (next_ == files_) {
        buffer_ = tar.Finish();
      } else {
        tar.File(
            "d" + std::to_string(next_ / 500) + "/f" + std::to_string(next_),
            PatternData(seed, next_ % 1000 == 0 ? 8'000'000 : 1000 + seed % 5000, next_ % 7 != 0));
        buffer_ = tar.Finish(false);
      }
      ++next_;
      at_ = 0;
    }
    const std::size_t n = std::min(out.size(), buffer_.size() - at_);
    std::memcpy(out.data(), buffer_.data() + at_, n);
    at_ += n;
    return n;
  }

 private:
  const int files_;
  int next_ = 0;
  std::string buffer_;
  std::size_t at_ = 0;
};

TEST(BuildMemoryTest, StaysBoundedWithManyFiles) {
  auto dir = TempDir::Create("builder-memory");
  ASSERT_OK(dir);
  rafs::BuildOptions options;
  options.threads = 4;
  rafs::BlobSet blobs;
  const auto tree = rafs::BuildTar({}, std::make_unique<GeneratedTar>(38'000), 0, options,
                                   dir->path(), blobs, nullptr);
  ASSERT_OK(tree);
  ASSERT_OK(rafs::WriteBootstrap(*tree, blobs, options));
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
#ifndef DAVIT_SANITIZED  // whose shadow memory counts too
  EXPECT_LT(usage.ru_maxrss, 256 << 10) << "KiB";
#endif
}

}  // namespace
}  // namespace davit::testing
