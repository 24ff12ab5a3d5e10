// The bytes of blobs and bootstraps: sections, identifiers, tables, determinism, limits.

#include <sys/stat.h>

#include <map>
#include <tuple>

#include "common/digest/digest.h"
#include "rafs/layout/v6.h"
#include "storage/blobmeta/toc.h"
#include "tests/unit/rafs_builder/builder_fixture.h"

namespace davit::testing {
namespace {

using rafs::BuildOptions;

// Files that end on and off every boundary, equal content, small and large ones.
std::vector<std::size_t> SampleSizes(std::uint32_t chunk_size) {
  std::vector<std::size_t> sizes = {0,         1,         511,       512,      4095,  4096,
                                    4097,      8192,      65535,     65536,    65537, 200'000,
                                    1'048'575, 1'048'576, 1'048'577, 2'500'000};
  std::erase_if(sizes, [&](std::size_t size) { return size > 200'000 && size > 4 * chunk_size; });
  return sizes;
}

std::string MakeSampleTar(std::uint32_t chunk_size) {
  TarWriter tar;
  tar.Dir("./");
  std::uint64_t seed = 0;
  for (const std::size_t size : SampleSizes(chunk_size)) {
    tar.File("text/" + std::to_string(size), PatternData(seed, size));
    tar.File("random/" + std::to_string(size), PatternData(seed, size, false));
    tar.File("copy/" + std::to_string(size), PatternData(seed++, size));
  }
  for (std::uint64_t i = 0; i < 300; ++i) {
    tar.File("small/" + std::to_string(i), PatternData(1000 + i, 700));
  }
  tar.File("zeros", std::string(1'500'000, '\0'));
  return tar.Finish();
}

// Made once for each chunk size: the pattern costs more than the build.
const std::string& SampleTar(std::uint32_t chunk_size) {
  static std::map<std::uint32_t, std::string> made;
  std::string& tar = made[chunk_size];
  if (tar.empty()) tar = MakeSampleTar(chunk_size);
  return tar;
}

const std::string& Pattern(std::uint64_t seed, std::size_t size, bool compressible) {
  static std::map<std::tuple<std::uint64_t, std::size_t, bool>, std::string> made;
  std::string& data = made[{seed, size, compressible}];
  if (data.empty()) data = PatternData(seed, size, compressible);
  return data;
}

struct Case {
  codec::Algorithm compressor;
  DigestAlgorithm digester;
  std::uint32_t chunk_size, batch_size;
  bool toc, inline_bootstrap;
};

std::string CaseName(const Case& c) {
  return std::string(codec::AlgorithmName(c.compressor)) + "_" +
         std::string(DigestAlgorithmName(c.digester)) + "_" + std::to_string(c.chunk_size) +
         (c.batch_size != 0 ? "_batch" + std::to_string(c.batch_size) : "") +
         (c.toc ? "_toc" : "") + (c.inline_bootstrap ? "_inline" : "");
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const auto compressor :
       {codec::Algorithm::kNone, codec::Algorithm::kLz4Block, codec::Algorithm::kZstd}) {
    for (const std::uint32_t chunk : {4096U, 65536U, 1U << 20, 16U << 20}) {
      for (const bool batch : {false, true}) {
        // Digest and shape of the blob do not depend on the rest: all of them, but not with all.
        const std::size_t n = cases.size();
        cases.push_back({compressor,
                         (n / 2 + n) % 2 == 0 ? DigestAlgorithm::kBlake3 : DigestAlgorithm::kSha256,
                         chunk, batch ? std::min(chunk, 65536U) : 0U, n % 3 != 1, n % 2 == 0});
      }
    }
  }
  for (const bool toc : {false, true}) {
    for (const bool in : {false, true}) {
      for (const std::uint32_t batch : {0U, 262144U}) {
        cases.push_back(
            {codec::Algorithm::kZstd, DigestAlgorithm::kSha256, 1U << 20, batch, toc, in});
        cases.push_back(
            {codec::Algorithm::kLz4Block, DigestAlgorithm::kBlake3, 1U << 19, batch, toc, in});
      }
    }
  }
  return cases;
}

class EveryShapeTest : public BuilderTest, public ::testing::WithParamInterface<Case> {
 protected:
  void SetUp() override {
    BuilderTest::SetUp();
    const Case& c = GetParam();
    options_.compressor = c.compressor;
    options_.digester = c.digester;
    options_.chunk_size = c.chunk_size;
    options_.batch_size = c.batch_size;
    options_.blob_toc = c.toc;
    options_.inline_bootstrap = c.inline_bootstrap;
  }
};

TEST_P(EveryShapeTest, ReadsBackEqual) {
  const std::string& tar = SampleTar(options_.chunk_size);
  const auto image = RoundTrip(tar);
  ASSERT_OK(image);
  std::uint64_t seed = 0;
  for (const std::size_t size : SampleSizes(options_.chunk_size)) {
    const std::string name = std::to_string(size);
    EXPECT_TRUE(image->at("text/" + name).content == Pattern(seed, size, true)) << name;
    EXPECT_TRUE(image->at("copy/" + name).content == Pattern(seed, size, true)) << name;
    EXPECT_TRUE(image->at("random/" + name).content == Pattern(seed, size, false)) << name;
    ++seed;
  }
  for (std::uint64_t i = 0; i < 300; ++i) {
    EXPECT_EQ(image->at("small/" + std::to_string(i)).content, PatternData(1000 + i, 700));
  }
  EXPECT_TRUE(image->at("zeros").content == std::string(1'500'000, '\0'));
}

TEST_P(EveryShapeTest, DoesNotDependOnThreads) {
  const std::string& tar = SampleTar(options_.chunk_size);
  std::string first_id, first_bootstrap;
  for (const int threads : {1, 4}) {
    options_.threads = threads;
    blobs_ = {};
    const auto tree = Build(tar);
    ASSERT_OK(tree);
    const auto bootstrap = rafs::WriteBootstrap(*tree, blobs_, options_);
    ASSERT_OK(bootstrap);
    if (threads == 1) {
      first_id = blobs_.blobs.at(0).id.value;
      first_bootstrap = bootstrap->bytes;
      continue;
    }
    EXPECT_EQ(blobs_.blobs.at(0).id.value, first_id);
    EXPECT_TRUE(bootstrap->bytes == first_bootstrap);
  }
}

TEST_P(EveryShapeTest, SectionsAndIdFollowTheFormat) {
  const std::string& tar = SampleTar(options_.chunk_size);
  ASSERT_OK(Build(tar));
  const rafs::BuiltBlob& blob = blobs_.blobs.at(0);
  const auto file = ReadFile(blob.path, 1ULL << 30);
  ASSERT_OK(file);
  EXPECT_EQ(blob.file_size, file->size());
  EXPECT_EQ(blob.compressed_size, file->size());
  EXPECT_EQ(blob.path, dir_->path() + "/" + blob.id.value);

  const Case& c = GetParam();
  std::string digested = *file;
  if (c.toc) {
    const auto digests = BlobSection(blob.path, storage::kSectionDigest);
    ASSERT_OK(digests);
    ASSERT_EQ(digests->size(), blob.chunks.size() * 32);
    for (std::size_t i = 0; i < blob.chunks.size(); ++i) {
      EXPECT_EQ(digests->substr(i * 32, 32), AsText(blob.chunks[i].digest.bytes));
    }
    const auto ci = BlobSection(blob.path, storage::kSectionCi);
    ASSERT_OK(ci);
    EXPECT_TRUE(*ci == blob.ci_array);
    ASSERT_OK(BlobSection(blob.path, storage::kSectionCiHeader));
    const auto toc = storage::Toc::ParseTail(
        AsBytes(*file).last(std::min<std::size_t>(4096, file->size())), file->size());
    ASSERT_OK(toc);
    const storage::TocEntry* data = toc->Find(storage::kSectionData);
    ASSERT_NE(data, nullptr);
    EXPECT_EQ(data->offset, 0U);
    EXPECT_EQ(data->digest,  // with the section's header, as the real builder has it
              Digest::Of(DigestAlgorithm::kSha256,
                         AsBytes(*file).first(data->stored_size + storage::kTarHeaderSize)));
    EXPECT_EQ(blob.toc_digest,
              Digest::Of(DigestAlgorithm::kSha256, AsBytes(*file).last(blob.toc_size)));
    if (!c.inline_bootstrap) {
      const std::size_t at = digested.find(*digests);
      ASSERT_NE(at, std::string::npos);
      digested.erase(at, digests->size());
    }
  } else {
    EXPECT_EQ(blob.toc_size, 0U);
  }
  EXPECT_EQ(blob.id.value, Digest::Of(DigestAlgorithm::kSha256, AsBytes(digested)).Hex());
  EXPECT_EQ((blob.features & storage::kBlobInlinedMeta) != 0, c.inline_bootstrap);
  EXPECT_EQ((blob.features & storage::kBlobToc) != 0, c.toc);
  EXPECT_EQ((blob.features & storage::kBlobTarHeader) != 0, c.toc || c.inline_bootstrap);
  EXPECT_EQ((blob.features & storage::kBlobBatch) != 0, c.batch_size != 0);
}

TEST_P(EveryShapeTest, InlineBootstrapDescribesItsOwnBlob) {
  if (!GetParam().inline_bootstrap) GTEST_SKIP() << "blob without a bootstrap";
  const std::string& tar = SampleTar(options_.chunk_size);
  const auto tree = Build(tar);
  ASSERT_OK(tree);
  const rafs::BuiltBlob& blob = blobs_.blobs.at(0);
  std::string bootstrap;
  if (GetParam().toc) {
    auto section = BlobSection(blob.path, storage::kSectionBootstrap);
    ASSERT_OK(section);
    bootstrap = *std::move(section);
  } else {
    const auto file = ReadFile(blob.path, 1ULL << 30);
    ASSERT_OK(file);
    const auto header = storage::ParseSectionHeader(AsBytes(*file).last(512));
    ASSERT_OK(header);
    EXPECT_EQ(header->name, storage::kSectionBootstrap);
    bootstrap = file->substr(file->size() - 512 - header->size, header->size);
  }
  const auto owner = std::make_shared<std::string>(bootstrap);
  const auto metadata = rafs::Metadata::Open(AsBytes(*owner), owner, blob.id);
  ASSERT_OK(metadata);
  EXPECT_EQ((*metadata)->blobs().at(0).id, blob.id);
  EXPECT_NE((*metadata)->blobs().at(0).features & storage::kBlobInlinedMeta, 0U);
  ASSERT_OK(UncompressedBlob(**metadata, 0, blob.path));
  // The tree that a merge makes from it is the tree of the build.
  rafs::BlobSet again;
  auto back = rafs::TreeFromBootstrap(**metadata, again);
  ASSERT_OK(back);
  ASSERT_OK(rafs::InterpretMarkers(*back, options_.whiteouts));
  again.blobs.at(0) = blob;
  const auto from_tree = rafs::WriteBootstrap(*tree, blobs_, options_);
  const auto from_inline = rafs::WriteBootstrap(*back, again, options_);
  ASSERT_OK(from_tree);
  ASSERT_OK(from_inline);
  EXPECT_TRUE(from_tree->bytes == from_inline->bytes);
  // A bootstrap that is a file of its own must not say that it is inside a blob: nydusd would take
  // the name of that file for the id of every blob that says so.
  const auto image = std::make_shared<std::string>(from_tree->bytes);
  const auto own_file = rafs::Metadata::Open(AsBytes(*image), image);
  ASSERT_OK(own_file);
  EXPECT_EQ((*own_file)->blobs().at(0).id, blob.id);
  EXPECT_EQ((*own_file)->blobs().at(0).features & storage::kBlobInlinedMeta, 0U);
}

INSTANTIATE_TEST_SUITE_P(All, EveryShapeTest, ::testing::ValuesIn(AllCases()),
                         [](const auto& param) {
                           return std::to_string(param.index) + "_" + CaseName(param.param);
                         });

class FormatTest : public BuilderTest {};

TEST_F(FormatTest, StoresEqualChunksOnce) {
  TarWriter tar;
  tar.File("a", PatternData(1, 100'000)).File("b", PatternData(1, 100'000));
  tar.File("z", std::string(5U << 20, '\0'));
  ASSERT_OK(Build(tar.Finish()));
  EXPECT_EQ(blobs_.blobs.at(0).chunks.size(), 2U);
}

TEST_F(FormatTest, DictionaryAcrossLayersAndImages) {
  TarWriter one, two;
  one.File("a", PatternData(1, 3'000'000));
  two.File("b", PatternData(1, 3'000'000)).File("c", "new");
  rafs::ChunkDict dict;
  const auto lower = Build(one.Finish(), 0, &dict);
  ASSERT_OK(lower);
  const auto upper = Build(two.Finish(), 1, &dict);
  ASSERT_OK(upper);
  ASSERT_EQ(blobs_.blobs.size(), 2U);
  EXPECT_EQ(blobs_.blobs[1].chunks.size(), 1U) << "only 'c' is new";
  const auto image = Read(*upper);
  ASSERT_OK(image);
  EXPECT_EQ(image->at("b").content, PatternData(1, 3'000'000));
  EXPECT_EQ(bootstrap_.used_blobs, (std::vector<std::uint32_t>{0, 1}));

  // The same with the dictionary read from an image.
  const auto owner = std::make_shared<std::string>(bootstrap_.bytes);
  const auto metadata = rafs::Metadata::Open(AsBytes(*owner), owner);
  ASSERT_OK(metadata);
  rafs::BlobSet set;
  rafs::ChunkDict from_image;
  ASSERT_OK(from_image.AddImage(**metadata, options_, set));
  const auto tree =
      rafs::BuildTar({}, StringStream(two.Finish()), 0, options_, dir_->path(), set, &from_image);
  ASSERT_OK(tree);
  EXPECT_EQ(set.blobs.size(), 2U) << "nothing is new, no blob is made";
  const auto all = rafs::WriteBootstrap(*tree, set, options_);
  ASSERT_OK(all);
  for (std::size_t b = 0; b < 2; ++b)
    set.blobs[b].path = dir_->path() + "/" + set.blobs[b].id.value;
  const auto again = ReadImage(all->bytes, set, options_);
  ASSERT_OK(again);
  EXPECT_EQ(again->at("b").content, PatternData(1, 3'000'000));
  EXPECT_EQ(again->at("c").content, "new");

  options_.chunk_size = 4096;
  rafs::BlobSet unused;
  const Status other = rafs::ChunkDict().AddImage(**metadata, options_, unused);
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code(), Code::kInvalidArgument);
}

TEST_F(FormatTest, EqualLayersShareOneBlob) {
  TarWriter tar;
  tar.File("same", PatternData(1, 10'000));
  auto lower = Build(tar.Finish(), 0);
  auto upper = Build(tar.Finish(), 1);
  ASSERT_OK(lower);
  ASSERT_OK(upper);
  (*upper).root->children["other"] = (*upper).root->children["same"];
  (*upper).root->children.erase("same");
  ASSERT_OK(rafs::ApplyLayer(*lower, *std::move(upper)));
  const auto image = Read(*lower);
  ASSERT_OK(image);
  EXPECT_EQ(bootstrap_.used_blobs.size(), 1U);
  EXPECT_EQ(image->at("other").content, image->at("same").content);
}

// Whoever fetches a whole blob must be able to verify all of it, also what upper layers hide.
TEST_F(FormatTest, ChunkTableCoversHiddenChunks) {
  TarWriter one, two;
  one.File("a", "lower").File("keep", "kept");
  two.File("a", "upper");
  auto lower = Build(one.Finish(), 0);
  auto upper = Build(two.Finish(), 1);
  ASSERT_OK(lower);
  ASSERT_OK(upper);
  ASSERT_OK(rafs::ApplyLayer(*lower, *std::move(upper)));
  const auto image = Read(*lower);  // verifies every chunk of both blobs
  ASSERT_OK(image);
  const auto super = rafs::v6::ParseSuper(AsBytes(bootstrap_.bytes));
  ASSERT_OK(super);
  EXPECT_EQ(super->ext.chunk_table_size, 3 * sizeof(rafs::v6::ChunkRecord));
}

TEST_F(FormatTest, SuperblockDevicesAndPrefetchTable) {
  TarWriter tar;
  tar.File("bin/sh", PatternData(1, 5000)).File("etc/x", "x").Dir("lib").File("lib/y", "y");
  options_.prefetch = {"/lib", "/lib/y", "/bin/sh", "/not/there"};
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  const Bytes bytes = AsBytes(bootstrap_.bytes);
  EXPECT_EQ(bytes.size() % 4096, 0U);
  const auto super = rafs::v6::ParseSuper(bytes);
  ASSERT_OK(super);
  EXPECT_EQ(super->erofs.root_nid, rafs::v6::kRootNid);
  EXPECT_EQ(super->erofs.blocks, 4U);
  EXPECT_EQ(super->erofs.inos, image->size());
  EXPECT_EQ(super->ext.flags, 0x0100'0000U | 0x80U | 0x4U | 0x10U | 0x100U);
  const auto device = LoadAt<erofs::DeviceSlot>(bytes, 1408, "device");
  ASSERT_OK(device);
  EXPECT_EQ(device->blocks, 4U);
  EXPECT_EQ(device->mapped_blkaddr, AlignUp(bytes.size(), 512 << 10) / 4096);
  ASSERT_EQ(super->ext.prefetch_table_size, 8U) << "one each for /lib and /bin/sh";
  const auto first = LoadAt<std::uint32_t>(bytes, super->ext.prefetch_table_offset, "prefetch");
  const auto second =
      LoadAt<std::uint32_t>(bytes, super->ext.prefetch_table_offset + 4, "prefetch");
  EXPECT_EQ(*first, image->at("lib").id);
  EXPECT_EQ(*second, image->at("bin/sh").id);
}

// A file in one run of its blob is one extent for the kernel, others are not.
TEST_F(FormatTest, ChunkExponentOfContiguousFiles) {
  options_.chunk_size = 4096;
  TarWriter tar;
  tar.File("run", PatternData(1, 20'000));
  tar.File("mixed", PatternData(2, 4096) + PatternData(1, 4096) + PatternData(3, 100));
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  const auto super = rafs::v6::ParseSuper(AsBytes(bootstrap_.bytes));
  ASSERT_OK(super);
  const auto format = [&](const char* name) {
    const auto inode = LoadAt<erofs::InodeExtended>(
        AsBytes(bootstrap_.bytes), super->meta_offset() + image->at(name).id * 32, name);
    return inode->i_u;
  };
  EXPECT_EQ(format("run"), 0x20U | 3U);  // 32 KiB
  EXPECT_EQ(format("mixed"), 0x20U);
}

TEST_F(FormatTest, BigDirectoriesAndLongSymlinks) {
  TarWriter tar;
  for (int i = 0; i < 3000; ++i) {
    tar.Add({.name = "d/" + std::string(200, 'n') + std::to_string(i), .gnu_long = true});
  }
  for (const std::size_t size : std::initializer_list<std::size_t>{1, 3000, 4032, 4033, 4095}) {
    tar.Add({.name = std::to_string(size),
             .type = '2',
             .link = std::string(size, 't'),
             .gnu_long = true});
  }
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  EXPECT_EQ(image->size(), 3000U + 5 + 2);
  for (const std::size_t size : std::initializer_list<std::size_t>{1, 3000, 4032, 4033, 4095}) {
    EXPECT_EQ(image->at(std::to_string(size)).target, std::string(size, 't'));
  }
}

TEST_F(FormatTest, OwnersCanBeLeftOut) {
  options_.keep_uid_gid = false;
  TarWriter tar;
  tar.Add({.name = "f", .uid = 5, .gid = 6});
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  EXPECT_EQ(image->at("f").uid, 0U);
  const auto super = rafs::v6::ParseSuper(AsBytes(bootstrap_.bytes));
  EXPECT_FALSE(super->explicit_uid_gid);
}

// Pinned bytes: whoever changes the output on purpose changes these, and says so in CHANGES.md.
TEST_F(FormatTest, GoldenDigests) {
  TarWriter tar;
  tar.Dir("./").File("./a", "hello\n").Symlink("./l", "a").HardLink("./h", "./a");
  tar.Add({.name = "./x", .data = "x", .pax = {{"SCHILY.xattr.user.k", "v"}, {"mtime", "5.25"}}});
  options_.compressor = codec::Algorithm::kNone;  // zstd's output may change with its version
  const auto image = RoundTrip(tar.Finish());
  ASSERT_OK(image);
  EXPECT_EQ(blobs_.blobs.at(0).id.value,
            "c81c236353427c14b22764285cd83cbb53ee925a76070f2a00ec754bfc89e9fc");
  EXPECT_EQ(Digest::Of(DigestAlgorithm::kSha256, AsBytes(bootstrap_.bytes)).Hex(),
            "2c62f538d4a7b0a29c85047bb1eba81ca2b172ef778ceb7d34cada5bdd6b5e75");
}

TEST_F(FormatTest, ValidatesOptions) {
  const auto refused = [&](const std::string& field, const auto& change) {
    BuildOptions options;
    change(options);
    const Status status = options.Validate();
    ASSERT_FALSE(status.ok()) << field;
    EXPECT_EQ(status.error().code(), Code::kInvalidArgument);
    EXPECT_NE(status.error().message().find(field), std::string::npos) << status.error().message();
    EXPECT_FALSE(status.error().hint().empty());
  };
  refused("chunk_size", [](BuildOptions& o) { o.chunk_size = 5000; });
  refused("chunk_size", [](BuildOptions& o) { o.chunk_size = 2048; });
  refused("chunk_size", [](BuildOptions& o) { o.chunk_size = 32U << 20; });
  refused("batch_size", [](BuildOptions& o) { o.batch_size = 3U << 20; });
  refused("batch_size", [](BuildOptions& o) { o.batch_size = 2U << 20; });
  refused("gzip", [](BuildOptions& o) { o.compressor = codec::Algorithm::kGzip; });
  refused("level", [](BuildOptions& o) { o.compression_level = 77; });
  refused("threads", [](BuildOptions& o) { o.threads = -1; });
  refused("max_buffer_bytes", [](BuildOptions& o) { o.max_buffer_bytes = 1000; });
  refused("prefetch", [](BuildOptions& o) { o.prefetch = {"bin/sh"}; });
  EXPECT_TRUE(BuildOptions{}.Validate().ok());
}

TEST_F(FormatTest, RefusesMoreBlobsThanTheFormatHas) {
  rafs::Tree tree{std::make_shared<rafs::TreeInode>()};
  tree.root->mode = S_IFDIR | 0755;
  rafs::BlobSet blobs;
  for (std::uint32_t i = 0; i < 255; ++i) {
    rafs::BuiltBlob blob;
    char id[65];
    std::snprintf(id, sizeof id, "%064x", i);
    blob.id.value = id;
    blob.uncompressed_size = 4096;
    blob.chunks.resize(1);
    blob.chunks[0].size = 1;
    blobs.blobs.push_back(std::move(blob));
    auto file = std::make_shared<rafs::TreeInode>();
    file->mode = S_IFREG;
    file->size = 1;
    file->chunks = {{i, 0}};
    tree.root->children[std::to_string(i)] = std::move(file);
  }
  const auto bootstrap = rafs::WriteBootstrap(tree, blobs, options_);
  ASSERT_FALSE(bootstrap.ok());
  EXPECT_NE(bootstrap.error().message().find("254 blobs"), std::string::npos);
  tree.root->children.erase("7");
  EXPECT_TRUE(rafs::WriteBootstrap(tree, blobs, options_).ok());
  tree.root->children["8"]->chunks[0].chunk = 5;
  EXPECT_FALSE(rafs::WriteBootstrap(tree, blobs, options_).ok());
}

}  // namespace
}  // namespace davit::testing
