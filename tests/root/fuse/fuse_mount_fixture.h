#pragma once
// A mounted fake image in a mount namespace of its own.

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/base/fd.h"
#include "rafs/fuse/session.h"
#include "tests/support/fake_image/fake_image.h"

namespace davit::testing {

/// Build the image, then Mount(). Checks at the end that no mount, thread or descriptor is left.
class FuseMountTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite();  // a private mount namespace, once per process
  void SetUp() override;
  void TearDown() override;

  void Mount();
  std::string Path(const std::string& relative = "") const;
  rafs::FuseSession& session() { return *session_; }

  FakeImage image_;
  rafs::FuseOptions options_;
  std::shared_ptr<rafs::Filesystem> filesystem_;
  std::unique_ptr<rafs::FuseSession> session_;

 private:
  std::unique_ptr<TempDir> directory_;
  std::size_t descriptors_ = 0, mounts_ = 0;
};

std::size_t OpenDescriptors();
std::size_t Mounts();
/// Content of a file, or "errno N".
std::string Slurp(const std::string& path);
/// Text that differs at every position, so that a misplaced byte shows.
std::string Pattern(std::size_t size, unsigned seed);

}  // namespace davit::testing
