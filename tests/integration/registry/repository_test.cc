// One suite over every place that can hold images: layout, fake, docker-registry, zot.

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <thread>

#include "common/base/fd.h"
#include "tests/integration/registry/registry_fixture.h"
#include "tests/support/fake_registry/fake_registry.h"
#include "tests/support/registry_process/registry_process.h"

namespace davit::testing {
namespace {

enum class Place {
  kLayout,
  kFake,
  kFakeBearer,
  kFakeOld,  // no referrers API, relative Locations, a minimum size of chunks
  kDocker,
  kDockerLogin,
  kDockerTls,
  kZot,
  kZotTlsLogin
};

class RepositoryTest : public ::testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    const Place place = GetParam();
    registry::RegistryOptions options;
    options.upload_chunk_bytes = 256 << 10;
    if (place == Place::kLayout) {
      client_ = std::make_unique<Client>(options);
      prefix_ = "oci:" + dir_.path() + "/";
      return;
    }
    if (place == Place::kFake || place == Place::kFakeBearer || place == Place::kFakeOld) {
      StartFake(place);
      client_ = std::make_unique<Client>(options, Login("davit", "secret"));
      return;
    }
    StartProcess(place, options);
  }

  void StartFake(Place place) {
    FakeRegistry::Options options;
    options.users = {{"davit", "secret"}};
    if (place == Place::kFakeBearer) options.auth = FakeRegistry::Options::Auth::kBearer;
    if (place == Place::kFakeOld) {
      options.auth = FakeRegistry::Options::Auth::kBasic;
      options.referrers_api = false;
      options.relative_locations = true;
      options.chunk_min_length = 300 << 10;
      options.page_size = 2;
    }
    fake_ = FakeRegistry::Start(options);
    prefix_ = fake_->host() + "/";
  }

  void StartProcess(Place place, registry::RegistryOptions options) {
    RegistryProcess::Options wanted;
    wanted.login = place == Place::kDockerLogin || place == Place::kZotTlsLogin;
    const bool tls = place == Place::kDockerTls || place == Place::kZotTlsLogin;
    if (tls) {
      auto made = TestCertificates::Create(dir_.path());
      DAVIT_OK(made);
      wanted.tls = *made;
      options.tls.ca_files = {made->ca};
    }
    const bool zot = place == Place::kZot || place == Place::kZotTlsLogin;
    auto started =
        zot ? RegistryProcess::StartZot(wanted) : RegistryProcess::StartDockerRegistry(wanted);
    if (zot && !started.ok() && started.error().code() == Code::kNotFound)
      GTEST_SKIP() << started.error().ToString();
    DAVIT_OK(started);
    process_ = *std::move(started);
    client_ =
        std::make_unique<Client>(options, wanted.login ? Login("davit", "secret") : nullptr, !tls);
    prefix_ = process_->host() + "/";
  }

  std::shared_ptr<registry::Repository> Open(const std::string& name = "team/app") {
    if (GetParam() == Place::kLayout) {
      std::string flat = name;
      std::replace(flat.begin(), flat.end(), '/', '-');
      return client_->Open(prefix_ + flat);
    }
    return client_->Open(prefix_ + name);
  }

  /// Pushes an image of one layer; with `subject` it refers to it.
  oci::Descriptor PushImage(registry::Repository& repository, const std::string& tag,
                            const std::string& layer,
                            std::optional<oci::Descriptor> subject = std::nullopt) {
    const registry::BlobContent config = ContentOf("{}"), blob = ContentOf(layer);
    oci::Manifest manifest;
    manifest.config = config.descriptor;
    manifest.config.media_type = subject ? "application/vnd.test.type" : std::string(oci::kConfig);
    manifest.layers = {blob.descriptor};
    manifest.layers[0].media_type = std::string(oci::kLayerTar);
    // The fake does not derive the type from the config, as registries with the API do.
    if (subject && (GetParam() == Place::kFake || GetParam() == Place::kFakeBearer))
      manifest.artifact_type = manifest.config.media_type;
    manifest.subject = std::move(subject);
    for (const auto* content : {&config, &blob}) {
      const auto pushed = repository.PushBlob(ctx_, *content);
      if (!pushed.ok()) ADD_FAILURE() << pushed.error().ToString();
    }
    auto out = repository.PushManifest(ctx_, tag, oci::kManifest, oci::ToJson(manifest));
    if (!out.ok()) ADD_FAILURE() << out.error().ToString();
    return out.ok() ? *out : oci::Descriptor();
  }

  TempDir dir_ = *TempDir::Create("davit-registry-test-");
  std::unique_ptr<FakeRegistry> fake_;
  std::unique_ptr<RegistryProcess> process_;
  std::unique_ptr<Client> client_;
  std::string prefix_;
  Context ctx_;
};

TEST_P(RepositoryTest, PushAndPullAnImage) {
  const auto repository = Open();
  const std::string layer = Noise(1'000'003, 1);
  const oci::Descriptor pushed = PushImage(*repository, "v1", layer);
  const auto resolved = repository->Resolve(ctx_, "v1");
  DAVIT_OK(resolved);
  EXPECT_EQ(resolved->digest, pushed.digest);
  EXPECT_EQ(resolved->size, pushed.size);
  EXPECT_EQ(resolved->media_type, oci::kManifest);
  const auto document = repository->GetManifest(ctx_, pushed.digest);
  DAVIT_OK(document);
  const auto manifest = oci::ParseManifest(document->content);
  DAVIT_OK(manifest);
  std::string got;
  DAVIT_OK(repository->ReadBlob(ctx_, manifest->layers.at(0), [&](Bytes data) -> Status {
    got += AsText(data);
    return {};
  }));
  EXPECT_TRUE(got == layer);
  const auto config = repository->GetBlob(ctx_, manifest->config, 1000);
  DAVIT_OK(config);
  EXPECT_EQ(*config, "{}");
  EXPECT_EQ(repository->GetBlob(ctx_, manifest->layers[0], 1000).error().code(),
            Code::kResourceExhausted);
}

TEST_P(RepositoryTest, DockerTypesArriveAsTheyWereSent) {
  const bool zot = GetParam() == Place::kZot || GetParam() == Place::kZotTlsLogin;
  const auto repository = Open();
  const registry::BlobContent config = ContentOf("{}"), layer = ContentOf(Noise(5000, 11));
  DAVIT_OK(repository->PushBlob(ctx_, config));
  DAVIT_OK(repository->PushBlob(ctx_, layer));
  oci::Manifest manifest;
  manifest.media_type = std::string(oci::kDockerManifest);
  manifest.config = config.descriptor;
  manifest.config.media_type = std::string(oci::kDockerConfig);
  manifest.layers = {layer.descriptor};
  manifest.layers[0].media_type = std::string(oci::kDockerLayerGzip);
  auto pushed = repository->PushManifest(ctx_, "one", oci::kDockerManifest, oci::ToJson(manifest));
  // zot takes them only where it is configured to (http.compat), and not before version 2.1.
  if (zot && !pushed.ok()) GTEST_SKIP() << pushed.error().ToString();
  DAVIT_OK(pushed);
  pushed->platform = oci::Platform{.os = "linux", .architecture = "arm64"};
  oci::Index list;
  list.media_type = std::string(oci::kDockerIndex);
  list.manifests = {*pushed};
  const auto whole = repository->PushManifest(ctx_, "all", oci::kDockerIndex, oci::ToJson(list));
  DAVIT_OK(whole);
  for (const auto& [tag, sent] : {std::pair("one", *pushed), std::pair("all", *whole)}) {
    const auto resolved = repository->Resolve(ctx_, tag);
    DAVIT_OK(resolved);
    EXPECT_EQ(resolved->digest, sent.digest);
    EXPECT_EQ(resolved->media_type, sent.media_type);
    const auto document = repository->GetManifest(ctx_, tag);
    DAVIT_OK(document);
    EXPECT_EQ(document->descriptor.media_type, sent.media_type);
  }
  const auto got = oci::ParseManifest(repository->GetManifest(ctx_, pushed->digest)->content);
  DAVIT_OK(got);
  EXPECT_EQ(got->media_type, oci::kDockerManifest);
  EXPECT_EQ(got->config.media_type, oci::kDockerConfig);
  EXPECT_EQ(got->layers.at(0).media_type, oci::kDockerLayerGzip);
}

TEST_P(RepositoryTest, RangesAreExact) {
  const auto repository = Open();
  const std::string layer = Noise(700'001, 2);
  PushImage(*repository, "v1", layer);
  const auto source = repository->OpenBlob(ContentOf(layer).descriptor);
  EXPECT_EQ(source->Size(ctx_).value(), layer.size());
  for (const ByteRange range : {ByteRange{0, 1}, ByteRange{0, layer.size()}, ByteRange{700'000, 1},
                                ByteRange{4096, 300'000}, ByteRange{17, 0}}) {
    storage::SourceRead how;
    const auto got = ReadAll(*source, range, how);
    DAVIT_OK(got);
    EXPECT_TRUE(*got == layer.substr(range.offset, range.length)) << range.offset;
  }
  storage::SourceRead how;
  EXPECT_EQ(ReadAll(*source, {layer.size(), 1}, how).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(ReadAll(*source, {1, ~0ULL}, how).error().code(), Code::kInvalidArgument);
}

TEST_P(RepositoryTest, BlobsAreSentOnce) {
  const auto repository = Open();
  const registry::BlobContent content = ContentOf(Noise(900'000, 3));
  EXPECT_FALSE(repository->HasBlob(ctx_, content.descriptor).value());
  const auto first = repository->PushBlob(ctx_, content);
  DAVIT_OK(first);
  EXPECT_TRUE(*first);
  EXPECT_TRUE(repository->HasBlob(ctx_, content.descriptor).value());
  const auto second = repository->PushBlob(ctx_, content);
  DAVIT_OK(second);
  EXPECT_FALSE(*second);
  const registry::BlobContent empty = ContentOf("");
  DAVIT_OK(repository->PushBlob(ctx_, empty));
  EXPECT_TRUE(repository->HasBlob(ctx_, empty.descriptor).value());
}

TEST_P(RepositoryTest, ContentThatIsNotWhatItClaimsIsRefused) {
  const auto repository = Open();
  for (const std::size_t size : {1000UL, 900'000UL}) {
    registry::BlobContent content = ContentOf(Noise(size, 4));
    content.descriptor.digest = ContentOf("other").descriptor.digest;
    EXPECT_FALSE(repository->PushBlob(ctx_, content).ok()) << size;
    EXPECT_FALSE(repository->HasBlob(ctx_, content.descriptor).value());
  }
}

TEST_P(RepositoryTest, MountsFromAnotherRepository) {
  if (GetParam() == Place::kLayout) GTEST_SKIP() << "layouts share nothing with each other";
  const auto other = Open("team/base");
  const registry::BlobContent content = ContentOf(Noise(5000, 5));
  DAVIT_OK(other->PushBlob(ctx_, content));
  const auto repository = Open("team/app");
  const auto mounted = repository->MountBlob(ctx_, content.descriptor, "team/base");
  DAVIT_OK(mounted);
  EXPECT_EQ(repository->HasBlob(ctx_, content.descriptor).value(), true);
  const auto missing = repository->MountBlob(ctx_, ContentOf("not there").descriptor, "team/base");
  DAVIT_OK(missing);
  EXPECT_FALSE(*missing);
  EXPECT_EQ(repository->MountBlob(ctx_, content.descriptor, "../x").error().code(),
            Code::kInvalidArgument);
}

TEST_P(RepositoryTest, ListsTagsOverPages) {
  const auto repository = Open();
  std::vector<std::string> wanted;
  for (int i = 0; i < 5; ++i) {
    wanted.push_back("v" + std::to_string(i));
    PushImage(*repository, wanted.back(), "layer" + std::to_string(i));
  }
  auto tags = repository->ListTags(ctx_);
  DAVIT_OK(tags);
  std::sort(tags->begin(), tags->end());
  EXPECT_EQ(*tags, wanted);
}

TEST_P(RepositoryTest, ReferrersByApiOrByFallbackTag) {
  const auto repository = Open();
  const oci::Descriptor image = PushImage(*repository, "v1", "image");
  EXPECT_EQ(repository->Referrers(ctx_, image.digest, "").value().size(), 0U);
  const oci::Descriptor one = PushImage(*repository, "", "one", image);
  const oci::Descriptor two = PushImage(*repository, "", "two", image);
  const auto all = repository->Referrers(ctx_, image.digest, "");
  DAVIT_OK(all);
  ASSERT_EQ(all->size(), 2U);
  EXPECT_EQ((*all)[0].artifact_type, "application/vnd.test.type");
  EXPECT_EQ(repository->Referrers(ctx_, image.digest, "application/vnd.test.type").value().size(),
            2U);
  EXPECT_EQ(repository->Referrers(ctx_, image.digest, "other/type").value().size(), 0U);
  DAVIT_OK(repository->DeleteManifest(ctx_, one.digest));
  const auto left = repository->Referrers(ctx_, image.digest, "");
  DAVIT_OK(left);
  ASSERT_EQ(left->size(), 1U);
  EXPECT_EQ((*left)[0].digest, two.digest);
}

TEST_P(RepositoryTest, DeletesManifests) {
  const auto repository = Open();
  const oci::Descriptor image = PushImage(*repository, "v1", "image");
  const Status by_tag = repository->DeleteManifest(ctx_, "v1");
  // Whether a tag alone can go is the registry's decision.
  if (!by_tag.ok()) {
    EXPECT_EQ(by_tag.error().code(), Code::kUnsupported) << by_tag.error().ToString();
  } else {
    EXPECT_EQ(repository->Resolve(ctx_, "v1").error().code(), Code::kNotFound);
  }
  PushImage(*repository, "v1", "image");
  DAVIT_OK(repository->DeleteManifest(ctx_, image.digest));
  EXPECT_EQ(repository->GetManifest(ctx_, image.digest).error().code(), Code::kNotFound);
  EXPECT_EQ(repository->Resolve(ctx_, "v1").error().code(), Code::kNotFound);
}

TEST_P(RepositoryTest, WhatIsMissingIsNotFoundByName) {
  const auto repository = Open();
  PushImage(*repository, "v1", "image");
  const auto missing = repository->GetManifest(ctx_, "nothing");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code(), Code::kNotFound);
  EXPECT_NE(missing.error().ToString().find("nothing"), std::string::npos);
  const auto blob = repository->GetBlob(ctx_, ContentOf("not there").descriptor, 1000);
  EXPECT_EQ(blob.error().code(), Code::kNotFound);
  EXPECT_EQ(repository->GetManifest(ctx_, "../../etc/passwd").error().code(),
            Code::kInvalidArgument);
}

TEST(RegistryTls, UnknownAuthoritiesAreRefused) {
  const TempDir dir = *TempDir::Create("davit-registry-test-");
  RegistryProcess::Options wanted;
  wanted.tls = TestCertificates::Create(dir.path()).value();
  auto started = RegistryProcess::StartDockerRegistry(wanted);
  if (!started.ok() && started.error().code() == Code::kNotFound)
    GTEST_SKIP() << started.error().ToString();
  DAVIT_OK(started);
  const auto get = [&](registry::RegistryOptions options, bool plain) {
    Client client(options, nullptr, plain);
    return client.Open((*started)->host() + "/app:v1")->GetManifest({}, "v1").error().code();
  };
  EXPECT_EQ(get({}, false), Code::kUnauthenticated);
  registry::RegistryOptions skip;
  skip.tls.skip_verify = true;
  EXPECT_EQ(get(skip, false), Code::kNotFound);
  // Plain http is spoken only when asked for, and does not get through here.
  EXPECT_NE(get({}, true), Code::kNotFound);
}

TEST(LayoutRepository, HostileLayoutsAreRefused) {
  const TempDir dir = *TempDir::Create("davit-layout-test-");
  const std::string path = dir.path() + "/layout";
  Client client;
  const auto repository = client.Open("oci:" + path + ":v1");
  EXPECT_EQ(repository->GetManifest({}, "v1").error().code(), Code::kNotFound);
  DAVIT_OK(
      repository->PushManifest({}, "v1", oci::kIndex, R"({"schemaVersion":2,"manifests":[]})"));
  DAVIT_OK(repository->GetManifest({}, "v1"));
  const std::string digest = repository->Resolve({}, "v1")->digest;
  const std::string blob = path + "/blobs/sha256/" + digest.substr(7);
  // Damaged, a link to elsewhere, a fifo: never followed, never believed, never hung on.
  DAVIT_OK(WriteFileAtomic(blob, AsBytes(R"({"schemaVersion":2,"manifests":[ ]})")));
  EXPECT_EQ(repository->GetManifest({}, "v1").error().code(), Code::kDataLoss);
  ASSERT_EQ(unlink(blob.c_str()), 0);
  ASSERT_EQ(symlink("/etc/passwd", blob.c_str()), 0);
  EXPECT_FALSE(repository->GetManifest({}, "v1").ok());
  ASSERT_EQ(unlink(blob.c_str()), 0);
  ASSERT_EQ(mkfifo(blob.c_str(), 0600), 0);
  EXPECT_FALSE(repository->GetManifest({}, "v1").ok());
  for (const char* text :
       {"{", R"({"schemaVersion":2,"manifests":[{"mediaType":"a/b","digest":"sha256:../../x",)"
             R"("size":1,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]})"}) {
    DAVIT_OK(WriteFileAtomic(path + "/index.json", AsBytes(text)));
    EXPECT_EQ(repository->GetManifest({}, "v1").error().code(), Code::kInvalidArgument);
  }
  DAVIT_OK(WriteFileAtomic(path + "/oci-layout", AsBytes(R"({"imageLayoutVersion":"2.0"})")));
  EXPECT_EQ(repository->GetManifest({}, "v1").error().code(), Code::kUnsupported);
}

TEST(LayoutRepository, WritersAtTheSameTimeLoseNothing) {
  const TempDir dir = *TempDir::Create("davit-layout-test-");
  Client client;
  std::vector<std::jthread> writers;
  for (int i = 0; i < 12; ++i) {
    writers.emplace_back([&, i] {
      const auto repository = client.Open("oci:" + dir.path() + "/layout");
      EXPECT_TRUE(repository
                      ->PushManifest({}, "v" + std::to_string(i), oci::kIndex,
                                     R"({"schemaVersion":2,"manifests":[]})")
                      .ok());
    });
  }
  writers.clear();
  EXPECT_EQ(client.Open("oci:" + dir.path() + "/layout")->ListTags({}).value().size(), 12U);
}

std::string PlaceName(const ::testing::TestParamInfo<Place>& place) {
  constexpr std::array kNames = {"Layout",      "Fake",      "FakeBearer", "FakeOld",    "Docker",
                                 "DockerLogin", "DockerTls", "Zot",        "ZotTlsLogin"};
  return kNames.at(static_cast<std::size_t>(place.param));
}

INSTANTIATE_TEST_SUITE_P(Places, RepositoryTest,
                         ::testing::Values(Place::kLayout, Place::kFake, Place::kFakeBearer,
                                           Place::kFakeOld, Place::kDocker, Place::kDockerLogin,
                                           Place::kDockerTls, Place::kZot, Place::kZotTlsLogin),
                         PlaceName);

}  // namespace
}  // namespace davit::testing
