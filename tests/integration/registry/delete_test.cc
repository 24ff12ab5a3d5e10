// Deletions that are refused, or whose answer gets lost, where referrers are kept under a tag.

#include "tests/integration/registry/fault_fixture.h"

namespace davit::testing {
namespace {

using Kind = Fault::Kind;

class DeleteTest : public FaultTest {
 protected:
  /// An image and a manifest that refers to it, on a registry without the referrers API.
  void SetUp() override {
    Start({.referrers_api = false});
    repository_ = Open(client_);
    image_ = Push("v1", "the image", std::nullopt);
    referrer_ = Push("", "its signature", image_);
    ASSERT_EQ(Listed(), std::vector<std::string>{referrer_.digest});
  }

  oci::Descriptor Push(const std::string& tag, const std::string& layer,
                       std::optional<oci::Descriptor> subject) {
    const registry::BlobContent blob = ContentOf(layer);
    oci::Manifest manifest;
    manifest.config = blob.descriptor;
    manifest.config.media_type = std::string(oci::kConfig);
    manifest.subject = std::move(subject);
    EXPECT_TRUE(repository_->PushBlob(ctx_, blob).ok());
    auto out = repository_->PushManifest(ctx_, tag, oci::kManifest, oci::ToJson(manifest));
    EXPECT_TRUE(out.ok()) << out.error().ToString();
    return *out;
  }

  std::vector<std::string> Listed() {
    std::vector<std::string> out;
    const auto all = repository_->Referrers(ctx_, image_.digest, "");
    EXPECT_TRUE(all.ok()) << all.error().ToString();
    if (!all.ok()) return out;
    for (const oci::Descriptor& one : *all) out.push_back(one.digest);
    return out;
  }

  int CountPuts() const {
    int n = 0;
    for (const LoggedRequest& request : fake_->requests()) n += request.method == "PUT" ? 1 : 0;
    return n;
  }

  Client client_;
  std::shared_ptr<registry::Repository> repository_;
  oci::Descriptor image_, referrer_;
};

TEST_F(DeleteTest, ARefusedDeleteLeavesTheListOfReferrersAlone) {
  struct Case {
    int status;
    Code code;
  };
  for (const Case one : {Case{403, Code::kPermissionDenied}, Case{405, Code::kUnsupported},
                         Case{503, Code::kUnavailable}}) {
    fake_->SetFault({.kind = Kind::kRefuse, .method = "DELETE", .times = -1, .status = one.status});
    fake_->ClearLog();
    const Status refused = repository_->DeleteManifest(ctx_, referrer_.digest);
    ASSERT_FALSE(refused.ok()) << one.status;
    EXPECT_EQ(refused.error().code(), one.code) << refused.error().ToString();
    EXPECT_EQ(CountPuts(), 0) << one.status;
    fake_->ClearFaults();
    EXPECT_EQ(Listed(), std::vector<std::string>{referrer_.digest}) << one.status;
    DAVIT_OK(repository_->GetManifest(ctx_, referrer_.digest));
  }
  DAVIT_OK(repository_->DeleteManifest(ctx_, referrer_.digest));
  EXPECT_EQ(Listed(), std::vector<std::string>());
}

TEST_F(DeleteTest, ADeleteWhoseAnswerGetsLostIsDone) {
  fake_->SetFault({.kind = Kind::kStatus, .method = "DELETE", .status = 502});
  DAVIT_OK(repository_->DeleteManifest(ctx_, referrer_.digest));
  EXPECT_EQ(repository_->GetManifest(ctx_, referrer_.digest).error().code(), Code::kNotFound);
  EXPECT_EQ(Listed(), std::vector<std::string>());
  // What was never there is still an error.
  EXPECT_EQ(repository_->DeleteManifest(ctx_, referrer_.digest).error().code(), Code::kNotFound);
}

TEST_F(DeleteTest, NothingIsDeletedWhileItsSubjectCannotBeRead) {
  fake_->SetFault({.path = "/manifests/" + referrer_.digest, .method = "GET", .times = -1});
  const Status failed = repository_->DeleteManifest(ctx_, referrer_.digest);
  fake_->ClearFaults();
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code(), Code::kUnavailable);
  EXPECT_EQ(Listed(), std::vector<std::string>{referrer_.digest});
  DAVIT_OK(repository_->GetManifest(ctx_, referrer_.digest));
}

TEST_F(DeleteTest, AListThatCannotBeChangedAfterwardsIsTold) {
  fake_->SetFault({.kind = Kind::kRefuse, .method = "PUT", .times = -1, .status = 403});
  const Status half = repository_->DeleteManifest(ctx_, referrer_.digest);
  fake_->ClearFaults();
  ASSERT_FALSE(half.ok());
  EXPECT_EQ(half.error().code(), Code::kPermissionDenied);
  const std::string text = half.error().ToString();
  EXPECT_NE(text.find(referrer_.digest + " is deleted"), std::string::npos) << text;
  EXPECT_NE(text.find(image_.digest), std::string::npos) << text;
  EXPECT_EQ(repository_->GetManifest(ctx_, referrer_.digest).error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace davit::testing
