// Whiteouts, opaque directories, links and implicit directories over several layers.

#include <sys/stat.h>

#include "tests/unit/rafs_builder/builder_fixture.h"

namespace davit::testing {
namespace {

using Whiteouts = rafs::BuildOptions::Whiteouts;

class LayersTest : public BuilderTest {
 protected:
  /// Applies the layers in order; the first is the lowest.
  Result<rafs::Tree> Apply(const std::vector<TarWriter>& layers) {
    std::optional<rafs::Tree> tree;
    for (std::uint32_t i = 0; i < layers.size(); ++i) {
      DAVIT_TRY_ASSIGN(rafs::Tree next, Build(layers[i].Finish(), i));
      if (tree) {
        DAVIT_TRY(rafs::ApplyLayer(*tree, std::move(next)));
      } else {
        tree = std::move(next);
      }
    }
    rafs::DropWhiteouts(*tree);
    return *std::move(tree);
  }
  Result<Content> Image(const std::vector<TarWriter>& layers) {
    DAVIT_TRY_ASSIGN(const rafs::Tree tree, Apply(layers));
    return Read(tree);
  }
};

std::vector<std::string> Names(const Content& content) {
  std::vector<std::string> names;
  for (const auto& [name, node] : content) names.push_back(name);
  return names;
}

struct WhiteoutCase {
  const char* name;
  std::vector<TarWriter> layers;
  std::vector<std::string> want;  // without the root
};

TarWriter Tar() { return TarWriter().Dir("./"); }

std::vector<WhiteoutCase> WhiteoutCases() {
  return {
      {"RemovesFile", {Tar().File("a", "1").File("b", "1"), Tar().File(".wh.a", "")}, {"b"}},
      {"RemovesDirectory", {Tar().File("d/e/f", "1"), Tar().File("d/.wh.e", "")}, {"d"}},
      {"MissingTargetIsFine", {Tar().File("a", "1"), Tar().File(".wh.zz", "")}, {"a"}},
      {"LowestLayerHasNone",
       {Tar().File("a", "1").File(".wh.b", "").File("d/.wh..wh..opq", "")},
       {"a", "d"}},
      {"ReplacedDirectoryIsEmptyBelow",
       {Tar().File("d/old", "1"), Tar().File(".wh.d", "").File("d/new", "2")},
       {"d", "d/new"}},
      {"ReplacedFileStays", {Tar().File("f", "1"), Tar().File("f", "2").File(".wh.f", "")}, {"f"}},
      {"OpaqueHidesOnlyLower",
       {Tar().File("d/old", "1").File("d/s/x", "1"),
        Tar().File("d/new", "2").File("d/.wh..wh..opq", "")},
       {"d", "d/new"}},
      {"OpaqueThenThirdLayer",
       {Tar().File("d/a", "1"), Tar().File("d/.wh..wh..opq", "").File("d/b", "2"),
        Tar().File("d/c", "3")},
       {"d", "d/b", "d/c"}},
      {"WhiteoutThenAgain",
       {Tar().File("a", "1"), Tar().File(".wh.a", ""), Tar().File("a", "3")},
       {"a"}},
      {"DirectoryBecomesFile", {Tar().File("x/y", "1"), Tar().File("x", "2")}, {"x"}},
      {"FileBecomesDirectory", {Tar().File("x", "1"), Tar().File("x/y", "2")}, {"x", "x/y"}},
      {"AufsRemainsGo",
       {Tar().File("a", "1"), Tar().Dir(".wh..wh.plnk").File(".wh..wh.aufs", "")},
       {"a"}},
      {"WhiteoutBelowNewDirectoryGoes",
       {Tar(), Tar().File("n/.wh.x", "").File("n/y", "")},
       {"n", "n/y"}},
  };
}

TEST_F(LayersTest, OciWhiteouts) {
  auto cases = WhiteoutCases();
  for (WhiteoutCase& test : cases) {
    SCOPED_TRACE(test.name);
    const auto image = Image(test.layers);
    ASSERT_OK(image);
    test.want.insert(test.want.begin(), "");
    EXPECT_EQ(Names(*image), test.want);
  }
}

TEST_F(LayersTest, SenselessWhiteoutsAreRefused) {
  for (const char* name : {".wh.", ".wh..", ".wh..."}) {
    const auto tree = Build(TarWriter().File(name, "").Finish());
    ASSERT_FALSE(tree.ok()) << name;
    EXPECT_EQ(tree.error().code(), Code::kInvalidArgument);
  }
}

TEST_F(LayersTest, OverlayWhiteouts) {
  options_.whiteouts = Whiteouts::kOverlay;
  TarWriter upper = Tar();
  upper.Add({.name = "a", .type = '3'}).File(".wh.keep", "as a name");
  upper.Add({.name = "d",
             .type = '5',
             .mode = 0755,
             .pax = {{"SCHILY.xattr.trusted.overlay.opaque", "y"}}});
  upper.File("d/new", "2").Add({.name = "real", .type = '3', .major = 1, .minor = 3});
  const auto image = Image({Tar().File("a", "1").File("b", "1").File("d/old", "1"), upper});
  ASSERT_OK(image);
  EXPECT_EQ(Names(*image), (std::vector<std::string>{"", ".wh.keep", "b", "d", "d/new", "real"}));
  EXPECT_TRUE(image->at("d").xattrs.empty());
}

TEST_F(LayersTest, WithoutWhiteoutsMarkersAreFiles) {
  options_.whiteouts = Whiteouts::kNone;
  const auto image =
      Image({Tar().File("a", "1"), Tar().File(".wh.a", "").Add({.name = "c", .type = '3'})});
  ASSERT_OK(image);
  EXPECT_EQ(Names(*image), (std::vector<std::string>{"", ".wh.a", "a", "c"}));
}

TEST_F(LayersTest, AttributesComeFromTheUpperLayer) {
  TarWriter lower = Tar();
  lower.Dir("tmp", 01777).File("tmp/x", "1").Dir("etc", 0700);
  TarWriter upper;  // no entry for the root or tmp
  upper.File("tmp/y", "2").Dir("etc", 0711);
  upper.Add({.name = "etc/f", .data = "n", .mode = 0600, .uid = 9});
  const auto image = Image({lower, upper});
  ASSERT_OK(image);
  EXPECT_EQ(image->at("tmp").mode, S_IFDIR | 01777U) << "implicit parents change nothing";
  EXPECT_EQ(image->at("etc").mode, S_IFDIR | 0711U);
  EXPECT_EQ(image->at("etc/f").uid, 9U);
  EXPECT_EQ(image->at("tmp/x").content + image->at("tmp/y").content, "12");
}

// As in images made by build tools that list no parents: /lib is a symlink of the base layer.
TEST_F(LayersTest, ImplicitParentsFollowSymlinksOfLowerLayers) {
  const auto image = Image({Tar().Dir("usr/lib").Symlink("lib", "usr/lib").Symlink("abs", "/lib"),
                            TarWriter().File("lib/x.so", "1").File("abs/y.so", "2"),
                            TarWriter().Dir("lib").File("lib/z", "3")});
  ASSERT_OK(image);
  EXPECT_EQ(image->at("usr/lib/x.so").content, "1");
  EXPECT_EQ(image->at("usr/lib/y.so").content, "2");
  EXPECT_EQ(image->at("lib").mode & S_IFMT, static_cast<unsigned>(S_IFDIR)) << "named: replaced";
  EXPECT_EQ(image->at("lib/z").content, "3");
}

TEST_F(LayersTest, HardLinksAcrossLayers) {
  const auto image = Image(
      {Tar().File("dir/a", "content").Symlink("s", "t"),
       Tar().HardLink("b", "dir/a").File("dir/.wh.a", "").HardLink("s2", "s").HardLink("c", "b")});
  ASSERT_OK(image);
  EXPECT_FALSE(image->contains("dir/a"));
  EXPECT_EQ(image->at("b").content, "content");
  EXPECT_EQ(image->at("b").id, image->at("c").id);
  EXPECT_EQ(image->at("b").nlink, 2U);
  EXPECT_EQ(image->at("s2").target, "t");

  const auto kept = Image({Tar().File("a", "x"), Tar().HardLink("b", "a")});
  ASSERT_OK(kept);
  EXPECT_EQ(kept->at("a").id, kept->at("b").id);

  const auto missing = Image({Tar().File("a", "x"), Tar().HardLink("b", "nowhere")});
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code(), Code::kDataLoss);
  EXPECT_NE(missing.error().message().find("'nowhere'"), std::string::npos);
}

// What a layer's own bootstrap holds is enough to merge it later, without the tar.
TEST_F(LayersTest, LayerBootstrapsKeepMarkersForLaterMerges) {
  options_.inline_bootstrap = true;
  const std::vector<TarWriter> layers = {
      Tar()
          .Dir("tmp", 01777)
          .File("a", "1")
          .File("d/old", "1")
          .Dir("usr/lib")
          .Symlink("lib", "usr/lib"),
      TarWriter()
          .File(".wh.a", "")
          .File("d/.wh..wh..opq", "")
          .File("d/new", "2")
          .File("tmp/x", "3")
          .File("lib/z", "4")
          .HardLink("link", "usr/file"),
  };
  TarWriter base = layers[0];
  base.File("usr/file", "5");
  const auto direct = Image({base, layers[1]});
  ASSERT_OK(direct);
  const std::string direct_bytes = bootstrap_.bytes;

  // The same from the bootstraps inside the blobs.
  std::vector<rafs::BuiltBlob> built = blobs_.blobs;
  ASSERT_EQ(built.size(), 2U);
  std::optional<rafs::Tree> merged;
  rafs::BlobSet set;
  for (const rafs::BuiltBlob& blob : built) {
    const auto section = BlobSection(blob.path, "image.boot");
    ASSERT_OK(section);
    const auto owner = std::make_shared<std::string>(*section);
    const auto metadata = rafs::Metadata::Open(AsBytes(*owner), owner, blob.id);
    ASSERT_OK(metadata);
    if (merged) {
      EXPECT_TRUE(rafs::LookupPath(**metadata, "/.wh.a").ok());
      EXPECT_TRUE(rafs::LookupPath(**metadata, "/d/.wh..wh..opq").ok());
    }
    rafs::BlobSet own;
    auto tree = rafs::TreeFromBootstrap(**metadata, own);
    ASSERT_OK(tree);
    ASSERT_OK(rafs::InterpretMarkers(*tree, Whiteouts::kOci));
    own.blobs.at(0) = blob;
    rafs::MoveBlobs(*tree, std::move(own), set);
    if (merged) {
      ASSERT_OK(rafs::ApplyLayer(*merged, *std::move(tree)));
    } else {
      merged = *std::move(tree);
    }
  }
  const auto again = rafs::WriteBootstrap(*merged, set, options_);
  ASSERT_OK(again);
  EXPECT_TRUE(again->bytes == direct_bytes);
}

TEST_F(LayersTest, BlobsAreNumberedByFirstUse) {
  auto tree = Apply({Tar().File("z/zz", "1"), Tar().File("a", "2"), Tar().File("gone", "3"),
                     Tar().File(".wh.gone", "").File("m", "4")});
  ASSERT_OK(tree);
  ASSERT_OK(Read(*tree));
  EXPECT_EQ(bootstrap_.used_blobs, (std::vector<std::uint32_t>{1, 3, 0}));
}

}  // namespace
}  // namespace davit::testing
