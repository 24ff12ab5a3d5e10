// Bootstrap layers: packing and reading, also of layers that others made, well or badly.

#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>

#include "rafs/image/bootstrap_layer.h"
#include "tests/unit/rafs_image/fakes.h"

namespace davit::rafs {
namespace {

class MemoryStream final : public codec::ByteStream {
 public:
  explicit MemoryStream(std::string bytes) : bytes_(std::move(bytes)) {}
  Result<std::size_t> Read(MutableBytes out) override {
    const std::size_t n = std::min({out.size(), bytes_.size() - at_, std::size_t{777}});
    std::memcpy(out.data(), bytes_.data() + at_, n);
    at_ += n;
    return n;
  }

 private:
  std::string bytes_;
  std::size_t at_ = 0;
};

struct Read {
  Status status;
  std::map<std::string, std::string> files;  // "boot" or an id
};

Read ReadLayer(const std::string& layer) {
  Read out;
  out.status = ReadBootstrapLayer(std::make_unique<MemoryStream>(layer),
                                  [&](const LayerFile& file) -> Result<storage::ByteSink> {
                                    std::string& content =
                                        out.files[file.blob ? file.blob->value : "boot"];
                                    return storage::ByteSink([&content](Bytes data) -> Status {
                                      content += AsText(data);
                                      return {};
                                    });
                                  });
  return out;
}

struct Item {
  std::string path, content;
  mode_t type = S_IFREG;
  std::string link = {};
};

/// A tar as other tools make it.
std::string Tar(const std::vector<Item>& items, bool pax = true) {
  std::string out;
  archive* a = archive_write_new();
  if (pax) {
    archive_write_set_format_pax(a);
  } else {
    archive_write_set_format_gnutar(a);
  }
  archive_write_open2(
      a, &out, nullptr,
      [](archive*, void* data, const void* bytes, std::size_t size) {
        static_cast<std::string*>(data)->append(static_cast<const char*>(bytes), size);
        return static_cast<la_ssize_t>(size);
      },
      nullptr, nullptr);
  for (const Item& item : items) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, item.path.c_str());
    archive_entry_set_mode(entry, item.type | 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(item.content.size()));
    archive_entry_set_mtime(entry, 1700000000, 5);
    if (item.type == S_IFLNK) archive_entry_set_symlink(entry, item.link.c_str());
    if (item.type == S_IFREG && !item.link.empty()) {
      archive_entry_set_hardlink(entry, item.link.c_str());
    }
    archive_write_header(a, entry);
    archive_write_data(a, item.content.data(), item.content.size());
    archive_entry_free(entry);
  }
  archive_write_close(a);
  archive_write_free(a);
  return out;
}

const std::string kIdA(64, 'a'), kIdB(64, 'b');

TEST(LayerTest, PackingIsReproducibleAndReadsBack) {
  const std::string boot(300'000, 'B');
  const std::vector<std::pair<storage::BlobId, std::string>> metas{
      {storage::BlobId{kIdA}, std::string(8192, 'm')}, {storage::BlobId{kIdB}, ""}};
  const auto layer = PackBootstrapLayer(AsBytes(boot), metas);
  ASSERT_TRUE(layer.ok()) << layer.error().ToString();
  EXPECT_EQ(PackBootstrapLayer(AsBytes(boot), metas)->gzip, layer->gzip);
  const auto tar = codec::Gunzip(AsBytes(layer->gzip), 1 << 20);
  ASSERT_TRUE(tar.ok());
  EXPECT_EQ(layer->diff_id, OciDigest::Format(Digest::Of(DigestAlgorithm::kSha256, AsBytes(*tar))));
  const Read read = ReadLayer(layer->gzip);
  ASSERT_TRUE(read.status.ok()) << read.status.error().ToString();
  EXPECT_EQ(read.files.at("boot"), boot);
  EXPECT_EQ(read.files.at(kIdA), std::string(8192, 'm'));
  EXPECT_EQ(read.files.at(kIdB), "");
  EXPECT_EQ(read.files.size(), 3U);
  EXPECT_EQ(ReadLayer(*tar).files, read.files);
}

TEST(LayerTest, NamesInAnyDirectoryAndNothingElse) {
  for (const bool pax : {true, false}) {
    const Read read = ReadLayer(Tar({{"image", "", S_IFDIR},
                                     {"image/backend.json", "{}"},
                                     {"../../etc/" + kIdA + ".blob.meta", "meta"},
                                     {"image/../" + std::string(64, 'X') + ".blob.meta", "no id"},
                                     {"./x/image.boot", "boot"},
                                     {"y/image.boot.old", "no"}},
                                    pax));
    ASSERT_TRUE(read.status.ok()) << read.status.error().ToString();
    EXPECT_EQ(read.files, (std::map<std::string, std::string>{{"boot", "boot"}, {kIdA, "meta"}}));
  }
}

TEST(LayerTest, LinksAreNotFollowed) {
  EXPECT_EQ(Outcome(ReadLayer(Tar({{"image.boot", "", S_IFLNK, "/etc/passwd"}})).status),
            "not_found");
  EXPECT_EQ(Outcome(ReadLayer(Tar({{"a", "x"}, {"image.boot", "", S_IFREG, "a"}})).status),
            "not_found");
}

TEST(LayerTest, DamagedLayers) {
  EXPECT_EQ(Outcome(ReadLayer("").status), "data_loss");
  EXPECT_EQ(Outcome(ReadLayer(Tar({{"image.boot", "1"}, {"x/image.boot", "2"}})).status),
            "data_loss");
  EXPECT_EQ(
      Outcome(ReadLayer(Tar({{kIdA + ".blob.meta", "1"}, {kIdA + ".blob.meta", "2"}})).status),
      "data_loss");
  const std::string whole = Tar({{"image.boot", std::string(10000, 'b')}});
  EXPECT_EQ(Outcome(ReadLayer(whole.substr(0, 5000)).status), "data_loss");
  EXPECT_EQ(Outcome(ReadLayer(std::string(2048, 'z')).status), "data_loss");
  const auto gzip = codec::GzipCompress(AsBytes(whole));
  ASSERT_TRUE(gzip.ok());
  EXPECT_EQ(Outcome(ReadLayer(gzip->substr(0, gzip->size() / 2)).status), "data_loss");
}

TEST(LayerTest, TooManyEntries) {
  std::vector<Item> items(5000, Item{"x", ""});
  EXPECT_EQ(Outcome(ReadLayer(Tar(items)).status), "resource_exhausted");
}

TEST(LayerTest, TheReceiversErrorEndsIt) {
  const auto status =
      ReadBootstrapLayer(std::make_unique<MemoryStream>(Tar({{"image.boot", "boot"}})),
                         [](const LayerFile&) -> Result<storage::ByteSink> {
                           return Error(Code::kResourceExhausted, "disk full");
                         });
  EXPECT_EQ(Outcome(status), "resource_exhausted");
}

}  // namespace
}  // namespace davit::rafs
