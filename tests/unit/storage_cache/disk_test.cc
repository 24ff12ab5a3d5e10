// A disk that is full, read-only or failing; two owners; strange files.

#include <cerrno>
#include <fstream>

#include "tests/unit/storage_cache/cache_fixture.h"

namespace davit::storage {
namespace {

class DiskTest : public CacheFixture {
 protected:
  FakeBlob blob_{{.chunks = 200}};
};

TEST_F(DiskTest, AFullDiskFailsTheRequestAndNotTheCache) {
  OpenCache();
  const auto cached = OpenBlob(blob_);
  const ByteRange last = RangeOf(blob_, 29);
  FakeBlob other({.seed = 5, .chunks = 200});
  const auto other_cached = OpenBlob(other);
  ASSERT_TRUE(other_cached->Ensure({}, {0, 1}).ok());  // the files exist
  ASSERT_TRUE(cached->Ensure({}, {0, 1}).ok());
  files_.FailWrites("/data", ENOSPC);
  const Status status = ReadAll(*other_cached, other);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code(), Code::kResourceExhausted);
  EXPECT_FALSE(status.error().hint().empty());
  files_.FailWrites("/data", 0);
  EXPECT_TRUE(ReadAll(*other_cached, other).ok());
  EXPECT_TRUE(ReadAndCompare(*cached, blob_, last).ok());
  EXPECT_GT(cache_->stats().write_errors, 0U);
}

TEST_F(DiskTest, ABlobThatCannotBeOpenedIsNotListed) {
  OpenCache();
  files_.FailWrites("/data", ENOSPC);
  EXPECT_FALSE(cache_->OpenBlob(blob_.Spec()).ok());
  EXPECT_TRUE(cache_->List().empty());
  cache_.reset();
  OpenCache();
  EXPECT_TRUE(cache_->List().empty());
  files_.FailWrites("/data", 0);
  EXPECT_TRUE(ReadAll(*OpenBlob(blob_), blob_).ok());
}

TEST_F(DiskTest, OneBlobThatCannotBeOpenedAtTheStartIsItsImagesTrouble) {
  const FakeBlob other({.seed = 5, .chunks = 20});
  OpenCache();
  ASSERT_TRUE(ReadAll(*OpenBlob(blob_), blob_).ok());
  ASSERT_TRUE(ReadAll(*OpenBlob(other), other).ok());
  cache_.reset();
  files_.FailOpens(other.map->id().value + "/data", EIO);
  OpenCache();
  ASSERT_TRUE(ReadAll(*OpenBlob(blob_), blob_).ok());
  EXPECT_EQ(blob_.source->requests().size(), 1U);
  EXPECT_FALSE(cache_->OpenBlob(other.Spec()).ok());
  files_.FailOpens(other.map->id().value + "/data", 0);
  ASSERT_TRUE(ReadAll(*OpenBlob(other), other).ok());
  EXPECT_EQ(other.source->requests().size(), 1U);  // nothing was thrown away
}

TEST_F(DiskTest, AFailingDiskIsAnInternalError) {
  OpenCache();
  const auto cached = OpenBlob(blob_);
  ASSERT_TRUE(cached->Ensure({}, {0, 1}).ok());
  for (const int error : {EIO, EROFS}) {
    files_.FailWrites("/data", error);
    EXPECT_EQ(ReadAll(*cached, blob_).error().code(), Code::kInternal);
  }
  files_.FailWrites("/data", 0);
  EXPECT_TRUE(ReadAll(*cached, blob_).ok());
}

TEST_F(DiskTest, WhatCouldNotBeSyncedIsFetchedAgain) {
  OpenCache();
  const auto cached = OpenBlob(blob_);
  files_.FailSyncs("/data", EIO);
  // Ensure, not a comparison: a sync that fails at this moment loses what was just written.
  ASSERT_TRUE(cached->Ensure({}, {0, cached->size()}).ok());
  // The failing sync throws the dirty pages away, as Linux may do.
  // (It may be the maintenance thread's sync, or this one's.)
  static_cast<void>(cache_->Flush());
  EXPECT_FALSE(cached->progress().complete);
  EXPECT_EQ(cached->progress().bytes_ready, 0U);
  files_.FailSyncs("/data", 0);
  ASSERT_TRUE(ReadAll(*cached, blob_).ok());
  ASSERT_TRUE(cache_->Flush().ok());
}

TEST_F(DiskTest, BitsThatCouldNotBeWrittenAreWrittenLater) {
  OpenCache();
  {
    const auto cached = OpenBlob(blob_);
    ASSERT_TRUE(cached->Ensure({}, {0, 1}).ok());
    files_.FailWrites("/ready", EIO);
    ASSERT_TRUE(ReadAll(*cached, blob_).ok());
    EXPECT_FALSE(cache_->Flush().ok());
    files_.FailWrites("/ready", 0);
    EXPECT_TRUE(cache_->Flush().ok());
  }
  const std::size_t requests = blob_.source->requests().size();
  cache_.reset();
  OpenCache();
  ASSERT_TRUE(ReadAll(*OpenBlob(blob_), blob_).ok());
  EXPECT_EQ(blob_.source->requests().size(), requests);
}

TEST_F(DiskTest, TheDataIsOnDiskBeforeItsBits) {
  OpenCache();
  const auto cached = OpenBlob(blob_);
  // Not all of it: completion wakes the maintenance thread, which flushes too.
  ASSERT_TRUE(cached->Ensure({.cause = Cause::kPrefetch}, RangeOf(blob_, 3)).ok());
  const int before = files_.syncs("/data");
  ASSERT_TRUE(cache_->Flush().ok());
  EXPECT_EQ(files_.syncs("/data"), before + 1);
  ASSERT_TRUE(cache_->Flush().ok());
  EXPECT_EQ(files_.syncs("/data"), before + 1);  // nothing to do
}

TEST_F(DiskTest, ASecondOwnerIsRefusedAndToldWhoTheFirstIs) {
  OpenCache();
  const auto second = BlobCache::Open(options_, files_, *scheduler_, clock_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code(), Code::kFailedPrecondition);
  EXPECT_NE(second.error().message().find(std::to_string(::getpid())), std::string::npos);
  cache_.reset();
  OpenCache();
}

TEST_F(DiskTest, UnknownFilesAreMovedAsideAndADamagedDatabaseIsRebuilt) {
  OpenCache();
  {
    const auto cached = OpenBlob(blob_);
    ASSERT_TRUE(ReadAll(*cached, blob_).ok());
  }
  cache_.reset();
  std::ofstream(dir_.path() + "/blobs/README") << "?";
  std::ofstream(dir_.path() + "/cache.db", std::ios::trunc) << std::string(8192, 'x');
  OpenCache();
  EXPECT_TRUE(ReadFile(dir_.path() + "/lost/README").ok());
  EXPECT_TRUE(ReadFile(dir_.path() + "/cache.db.damaged").ok());
  const std::size_t requests = blob_.source->requests().size();
  ASSERT_TRUE(ReadAll(*OpenBlob(blob_), blob_).ok());
  EXPECT_EQ(blob_.source->requests().size(), requests);  // the bits do not depend on it
}

TEST_F(DiskTest, ADirectoryOfANewerVersionIsRefused) {
  std::ofstream(dir_.path() + "/version") << "davit cache 2\n";
  const auto cache = BlobCache::Open(options_, files_, *scheduler_, clock_);
  EXPECT_EQ(cache.error().code(), Code::kFailedPrecondition);
}

TEST_F(DiskTest, ADataFileOfAnotherSizeStartsAnew) {
  OpenCache();
  std::string path;
  {
    const auto cached = OpenBlob(blob_);
    path = cached->data_path();
    ASSERT_TRUE(ReadAll(*cached, blob_).ok());
  }
  cache_.reset();
  ASSERT_TRUE((*files_.Open(path))->Truncate(blob_.map->uncompressed_size() / 2).ok());
  OpenCache();
  EXPECT_TRUE(ReadAll(*OpenBlob(blob_), blob_).ok());
}

}  // namespace
}  // namespace davit::storage
