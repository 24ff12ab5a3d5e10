#include "daemon/core/blob_sources.h"

#include <gtest/gtest.h>

#include "daemon/core/mount_credentials.h"

namespace davit::daemon {
namespace {

const storage::BlobId kBlob{std::string(64, 'a')};

// A source that answers with its name, or fails.
class NamedSource final : public storage::BlobSource {
 public:
  explicit NamedSource(std::string name) : name_(std::move(name)) {}
  std::string Describe() const override { return name_; }
  std::string Host() const override { return name_; }
  Result<std::uint64_t> Size(const Context&) override {
    if (error) return *error;
    return name_.size();
  }
  Status Read(const Context&, ByteRange, storage::SourceRead&,
              const storage::ByteSink& sink) override {
    ++reads;
    if (error && prefix.empty()) return *error;
    DAVIT_TRY(sink(AsBytes(error ? prefix : name_)));
    if (error) return *error;
    return {};
  }
  std::optional<Error> error;
  std::string prefix;  // delivered before the error
  int reads = 0;

 private:
  const std::string name_;
};

class BlobSourcesTest : public ::testing::Test {
 protected:
  Result<std::string> Read() {
    std::string out;
    storage::SourceRead how;
    DAVIT_TRY(sources.Get(kBlob)->Read({}, {0, 1}, how, [&](Bytes data) -> Status {
      out += AsText(data);
      return {};
    }));
    return out;
  }
  Status ReadAhead(Cause cause, const storage::ByteSink& sink = [](Bytes) { return Status(); }) {
    storage::SourceRead how;
    return sources.Get(kBlob)->Read({.cause = cause}, {0, 1}, how, sink);
  }
  int unused = 0;
  BlobSources sources{[this](const storage::BlobId&) { ++unused; }};
  std::shared_ptr<NamedSource> one = std::make_shared<NamedSource>("one");
  std::shared_ptr<NamedSource> two = std::make_shared<NamedSource>("two");
};

TEST_F(BlobSourcesTest, ReadsThroughWhoeverIsThere) {
  auto first = std::make_unique<BlobSources::Share>(sources.Add(kBlob, one));
  const auto held = sources.Get(kBlob);  // as the cache holds it
  const auto second = std::make_unique<BlobSources::Share>(sources.Add(kBlob, two));
  EXPECT_EQ(*Read(), "one");
  first.reset();
  EXPECT_EQ(unused, 0);
  EXPECT_EQ(*Read(), "two");
  EXPECT_EQ(sources.Get(kBlob), held);
}

TEST_F(BlobSourcesTest, ARefusedOneIsAskedLast) {
  const auto first = sources.Add(kBlob, one);
  const auto second = sources.Add(kBlob, two);
  one->error = Error(Code::kUnauthenticated, "token expired");
  EXPECT_EQ(*Read(), "two");
  EXPECT_EQ(*Read(), "two");
  EXPECT_EQ(one->reads, 1);
  two->error = Error(Code::kPermissionDenied, "no");
  EXPECT_EQ(Read().error().code(), Code::kUnauthenticated);  // the last one's reason
  one->error.reset();
  EXPECT_EQ(*Read(), "one");
}

TEST_F(BlobSourcesTest, OtherErrorsAreTheSchedulers) {
  const auto first = sources.Add(kBlob, one);
  const auto second = sources.Add(kBlob, two);
  one->error = Error(Code::kUnavailable, "down");
  EXPECT_EQ(Read().error().code(), Code::kUnavailable);
  EXPECT_EQ(two->reads, 0);
}

TEST_F(BlobSourcesTest, NothingIsDeliveredTwice) {
  const auto first = sources.Add(kBlob, one);
  const auto second = sources.Add(kBlob, two);
  one->error = Error(Code::kUnauthenticated, "token expired");
  one->prefix = "o";
  EXPECT_EQ(Read().error().code(), Code::kUnauthenticated);
  EXPECT_EQ(two->reads, 0);
}

TEST_F(BlobSourcesTest, TheLastOneStopsTheBackgroundWork) {
  const auto held = sources.Get(kBlob);
  {
    const auto share = sources.Add(kBlob, one);
  }
  EXPECT_EQ(unused, 1);
  EXPECT_EQ(Read().error().code(), Code::kCancelled);
  const auto again = sources.Add(kBlob, two);
  EXPECT_EQ(*Read(), "two");
}

std::shared_ptr<registry::CredentialProvider> Configured() {
  registry::Credential credential;
  credential.username = "configured";
  credential.password = Secret("x");
  return registry::FixedCredential(credential);
}

TEST(MountCredentialsTest, OwnOnesFirstThenTheConfigured) {
  MountCredentials credentials(Configured());
  EXPECT_EQ(credentials.Get({}, "r.example", "app")->username, "configured");
  // "own:pw" and "new:pw"
  ASSERT_TRUE(credentials.Renew(Secret(R"({"auths":{"r.example":{"auth":"b3duOnB3"}}})")).ok());
  EXPECT_EQ(credentials.Get({}, "r.example", "app")->username, "own");
  EXPECT_EQ(credentials.Get({}, "other.example", "app")->username, "configured");
  ASSERT_TRUE(credentials.Renew(Secret(R"({"auths":{"r.example":{"auth":"bmV3OnB3"}}})")).ok());
  EXPECT_EQ(credentials.Get({}, "r.example", "app")->username, "new");
  ASSERT_TRUE(credentials.Renew(Secret()).ok());
  EXPECT_EQ(credentials.Get({}, "r.example", "app")->username, "new");
  const auto bad = credentials.Renew(Secret("hunter2"));
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().ToString().find("hunter2"), std::string::npos);
}

TEST_F(BlobSourcesTest, WhyNothingComesAheadOfReadersIsKnownUntilSomethingComes) {
  EXPECT_FALSE(sources.BackgroundFailure(kBlob));
  const auto share = sources.Add(kBlob, one);
  one->error = Error(Code::kUnavailable, "away");
  EXPECT_FALSE(ReadAhead(Cause::kDemand).ok());  // the reader hears of it
  EXPECT_FALSE(sources.BackgroundFailure(kBlob));
  for (const Cause cause : {Cause::kPrefetch, Cause::kBackfill}) {
    EXPECT_FALSE(ReadAhead(cause).ok());
    ASSERT_TRUE(sources.BackgroundFailure(kBlob));
    EXPECT_EQ(sources.BackgroundFailure(kBlob)->message(), "away");
    one->error.reset();
    EXPECT_TRUE(Read().ok());  // for a reader: it is the same place
    EXPECT_FALSE(sources.BackgroundFailure(kBlob));
    one->error = Error(Code::kUnavailable, "away");
  }
  one->prefix = "t";  // a connection that is cut each time
  EXPECT_FALSE(ReadAhead(Cause::kBackfill).ok());
  EXPECT_TRUE(sources.BackgroundFailure(kBlob));
}

TEST_F(BlobSourcesTest, WhoGivesUpOrCannotTakeItSaysNothingAboutTheSource) {
  const auto share = sources.Add(kBlob, one);
  one->error = Error(Code::kCancelled, "the caller gave up");
  EXPECT_FALSE(ReadAhead(Cause::kBackfill).ok());
  one->error.reset();
  const auto full = [](Bytes) { return Status(Error(Code::kResourceExhausted, "no room")); };
  EXPECT_FALSE(ReadAhead(Cause::kBackfill, full).ok());
  EXPECT_FALSE(sources.BackgroundFailure(kBlob));
}

}  // namespace
}  // namespace davit::daemon
