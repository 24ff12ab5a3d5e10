// How much one image may hold.

#include <sys/stat.h>

#include <cstring>

#include "erofs/format/erofs_fs.h"
#include "rafs/layout/v6.h"
#include "rafs/metadata/metadata.h"
#include "tests/unit/rafs_builder/builder_fixture.h"

namespace davit::testing {
namespace {

using LimitsTest = BuilderTest;

TEST_F(LimitsTest, HoldsSixteenTebibytesAndNotABlockMore) {
  rafs::Tree tree{std::make_shared<rafs::TreeInode>()};
  tree.root->mode = S_IFDIR | 0755;
  rafs::BlobSet blobs;
  for (std::uint32_t i = 0; i < 2; ++i) {
    rafs::BuiltBlob blob;
    blob.id.value = std::string(64, i == 0 ? 'a' : 'b');
    blob.features = storage::kBlobAligned;
    blob.ci_header.record_count = 1;
    blob.ci_header.compressed_size = blob.ci_header.uncompressed_size = 16;
    blob.chunks.resize(1);
    blob.chunks[0].size = 4096;
    blobs.blobs.push_back(std::move(blob));
    auto file = std::make_shared<rafs::TreeInode>();
    file->mode = S_IFREG;
    file->size = 4096;
    file->chunks = {{i, 0}};
    tree.root->children[std::to_string(i)] = std::move(file);
  }
  // Each blob's only chunk is its last block.
  const auto resize = [&](std::size_t i, std::uint64_t blocks) {
    blobs.blobs[i].uncompressed_size = blocks * 4096;
    blobs.blobs[i].chunks[0].record.uncompressed_offset = (blocks - 1) * 4096;
  };
  const auto slot = [](const rafs::Bootstrap& bootstrap, std::size_t i) {
    erofs::DeviceSlot out;
    std::memcpy(&out, bootstrap.bytes.data() + rafs::v6::kDeviceTableOffset + i * sizeof out,
                sizeof out);
    return out;
  };
  const std::uint64_t half = 1ULL << 31;  // blocks: 8 TiB
  resize(0, half);
  resize(1, 1);
  const auto small = rafs::WriteBootstrap(tree, blobs, options_);
  ASSERT_OK(small);
  const std::uint64_t second_at = slot(*small, 1).mapped_blkaddr;
  ASSERT_GT(second_at, half);

  // Block numbers have 32 bits: what is in front of the second blob and all of it.
  const std::uint64_t room = UINT32_MAX - second_at;
  resize(1, room);
  const auto full = rafs::WriteBootstrap(tree, blobs, options_);
  ASSERT_OK(full);
  EXPECT_EQ(slot(*full, 1).mapped_blkaddr, second_at);
  EXPECT_EQ(slot(*full, 1).blocks, room);
  const auto metadata = rafs::Metadata::Open(AsBytes(full->bytes), nullptr);
  ASSERT_OK(metadata);
  for (std::uint32_t i = 0; i < 2; ++i) {
    const std::uint64_t size = (i == 0 ? half : room) * 4096;
    EXPECT_EQ((*metadata)->blobs()[i].ci.uncompressed_size, size);
    const auto file = rafs::LookupPath(**metadata, "/" + std::to_string(i));
    ASSERT_OK(file);
    std::vector<rafs::Extent> extents;
    ASSERT_OK((*metadata)->Extents(*file, 0, 4096, extents));
    ASSERT_EQ(extents.size(), 1U);
    EXPECT_EQ(extents[0].blob, i);
    EXPECT_EQ(extents[0].blob_offset, size - 4096);
    const auto digests = (*metadata)->Digests(i);
    ASSERT_OK(digests);
    EXPECT_EQ((*digests)->Get(0).place, (storage::ChunkDigests::Place{size - 4096, 4096}));
  }

  for (const std::uint64_t more : {room + 1, std::uint64_t{1} << 32, std::uint64_t{1} << 52}) {
    resize(1, more - (more >> 52));  // the last one: as large as a number of bytes can be
    const auto refused = rafs::WriteBootstrap(tree, blobs, options_);
    ASSERT_FALSE(refused.ok()) << more;
    EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
    EXPECT_NE(refused.error().message().find("16 TiB"), std::string::npos);
    EXPECT_NE(refused.error().message().find(std::string(64, 'b')), std::string::npos);
    EXPECT_FALSE(refused.error().hint().empty());
  }
}

}  // namespace
}  // namespace davit::testing
