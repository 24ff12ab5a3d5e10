#pragma once
// Shared by the builder's tests: a work directory, builds from tar text, reading back.

#include <gtest/gtest.h>

#include <string>

#include "common/base/fd.h"
#include "rafs/builder/builder.h"
#include "tests/support/tree/image_content.h"
#include "tests/support/tree/tar_writer.h"

namespace davit::testing {

#define ASSERT_OK(expr)                                                \
  do {                                                                 \
    const auto& davit_check_ = (expr);                                 \
    ASSERT_TRUE(davit_check_.ok()) << davit_check_.error().ToString(); \
  } while (false)

class BuilderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto dir = TempDir::Create("builder-test");
    ASSERT_OK(dir);
    dir_ = std::make_unique<TempDir>(*std::move(dir));
    options_.threads = 2;
  }

  Result<rafs::Tree> Build(const std::string& tar, std::uint32_t layer = 0,
                           rafs::ChunkDict* dict = nullptr) {
    return rafs::BuildTar({}, StringStream(tar), layer, options_, dir_->path(), blobs_, dict);
  }

  Result<rafs::Tree> BuildDir(const std::string& directory) {
    return rafs::BuildDirectory({}, directory, options_, dir_->path(), blobs_, nullptr);
  }

  /// The image of one tar, read back.
  Result<Content> RoundTrip(const std::string& tar) {
    DAVIT_TRY_ASSIGN(const rafs::Tree tree, Build(tar));
    return Read(tree);
  }

  Result<Content> Read(const rafs::Tree& tree) {
    DAVIT_TRY_ASSIGN(bootstrap_, rafs::WriteBootstrap(tree, blobs_, options_));
    return ReadImage(bootstrap_.bytes, blobs_, options_);
  }

  /// A directory of its own below the work directory.
  std::string MakeDir(const std::string& name) {
    const std::string path = dir_->path() + "/" + name;
    EXPECT_TRUE(MakeDirectories(path, 0755).ok());
    return path;
  }

  std::unique_ptr<TempDir> dir_;
  rafs::BuildOptions options_;
  rafs::BlobSet blobs_;
  rafs::Bootstrap bootstrap_;
};

}  // namespace davit::testing
