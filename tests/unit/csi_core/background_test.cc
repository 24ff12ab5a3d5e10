// Mounting that takes longer than its caller waits.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/unit/csi_core/node_fixture.h"

namespace davit::csi {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A daemon whose mounts wait until the test lets them go on.
class Background : public NodeTest {
 protected:
  Background() {
    daemon_.on_mount = [this](const Context& ctx, const daemon::api::MountRequest&) -> Status {
      MutexLock lock(mutex_);
      ++waiting_;
      changed_.NotifyAll();
      while (!open_) {
        if (!changed_.Wait(mutex_, ctx)) return Error(Code::kCancelled, "mount cancelled");
      }
      return result_;
    };
  }
  ~Background() override { node_.reset(); }

  void Open(Status result = {}) {
    MutexLock lock(mutex_);
    result_ = std::move(result);
    open_ = true;
    changed_.NotifyAll();
  }
  void AwaitMounts(int count) {
    MutexLock lock(mutex_);
    while (waiting_ < count) {
      if (!changed_.Wait(mutex_, Context{}.WithTimeout(seconds(20)))) FAIL() << "no mount call";
    }
  }
  // Until the operation in the background has ended.
  Status PublishUntilDone(const PublishRequest& request) {
    Status status = Error(Code::kInternal, "not run");
    for (int i = 0; i < 2000; ++i) {
      status = node_->Publish(Context{}.WithTimeout(seconds(20)), request);
      if (status.ok() || status.error().code() != Code::kAborted) return status;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return status;
  }
  Status PublishFor(milliseconds patience) {
    return node_->Publish(Context{}.WithTimeout(patience), RequestFor("v1", "/pods/a"));
  }

  Mutex mutex_;
  CondVar changed_;
  bool open_ DAVIT_GUARDED_BY(mutex_) = false;
  int waiting_ DAVIT_GUARDED_BY(mutex_) = 0;
  Status result_ DAVIT_GUARDED_BY(mutex_);
};

TEST_F(Background, TheDeadlineIsKeptAndTheNextTryJoins) {
  const Status late = PublishFor(milliseconds(30));
  EXPECT_CODE(late, Code::kDeadlineExceeded);
  EXPECT_NE(late.error().message().find("registry.test/team/model:v1 is not ready after"),
            std::string::npos);
  EXPECT_NE(late.error().hint().find("next try joins"), std::string::npos);
  EXPECT_CODE(PublishFor(milliseconds(30)), Code::kDeadlineExceeded);
  Open();
  EXPECT_TRUE(PublishUntilDone(RequestFor("v1", "/pods/a")).ok());
  EXPECT_TRUE(Shows("/pods/a", IdOf("v1")));
}

TEST_F(Background, JoiningDoesNotMountTwice) {
  EXPECT_CODE(PublishFor(milliseconds(10)), Code::kDeadlineExceeded);
  EXPECT_CODE(PublishFor(milliseconds(10)), Code::kDeadlineExceeded);
  EXPECT_CODE(PublishFor(milliseconds(10)), Code::kDeadlineExceeded);
  AwaitMounts(1);
  EXPECT_EQ(daemon_.requests().size(), 1U);
  Open();
}

TEST_F(Background, ProgressIsInTheText) {
  // The daemon lists a mount that is being made.
  daemon_.AddForeign(IdOf("v1"), MountPath(IdOf("v1")));
  daemon_.Change(IdOf("v1"), [](daemon::api::MountInfo& info) {
    info.state = "mounting";
    info.bytes_total = 751'000'000;
    info.bytes_ready = 120'500'000;
    info.error = "fetching ahead fails: GET registry.test: 503";
  });
  const Status late = PublishFor(milliseconds(20));
  EXPECT_CODE(late, Code::kDeadlineExceeded);
  EXPECT_NE(late.error().message().find("120.5 MB of 751.0 MB are here"), std::string::npos)
      << late.error().message();
  EXPECT_NE(late.error().message().find("GET registry.test: 503"), std::string::npos)
      << late.error().message();
}

TEST_F(Background, ASecondCallMeanwhileIsAborted) {
  std::thread first([&] { EXPECT_TRUE(Publish("v1", "/pods/a").ok()); });
  AwaitMounts(1);
  EXPECT_CODE(Publish("v1", "/pods/a"), Code::kAborted);
  EXPECT_CODE(Publish("v1", "/pods/b"), Code::kAborted);  // the same volume
  EXPECT_CODE(Publish("v2", "/pods/a"), Code::kAborted);  // the same target
  EXPECT_CODE(Unpublish("v1", "/pods/a"), Code::kAborted);
  std::thread other([&] { EXPECT_TRUE(Publish("v3", "/pods/c").ok()); });  // nobody's business
  AwaitMounts(2);
  Open();
  first.join();
  other.join();
}

TEST_F(Background, CancelledCallersGetCancelled) {
  std::stop_source stop;
  Context ctx;
  ctx.stop = stop.get_token();
  std::thread canceller([&] {
    AwaitMounts(1);
    stop.request_stop();
  });
  EXPECT_CODE(node_->Publish(ctx, RequestFor("v1", "/pods/a")), Code::kCancelled);
  canceller.join();
  Open();
  EXPECT_TRUE(PublishUntilDone(RequestFor("v1", "/pods/a")).ok());
}

TEST_F(Background, UnpublishStopsTheMounting) {
  EXPECT_CODE(PublishFor(milliseconds(10)), Code::kDeadlineExceeded);
  AwaitMounts(1);
  ASSERT_TRUE(Unpublish("v1", "/pods/a").ok());
  EXPECT_FALSE(daemon_.Knows(IdOf("v1")));
  EXPECT_EQ(JournalFiles(), 0U);
  EXPECT_TRUE(ListDirectory(state_.path() + "/mounts")->empty());
}

TEST_F(Background, AFailureThatNobodyHeardIsToldOnce) {
  EXPECT_CODE(PublishFor(milliseconds(10)), Code::kDeadlineExceeded);
  AwaitMounts(1);
  Open(Error(Code::kNotFound, "manifest unknown"));
  const Status told = PublishUntilDone(RequestFor("v1", "/pods/a"));
  EXPECT_CODE(told, Code::kNotFound);
  EXPECT_EQ(daemon_.requests().size(), 1U);
  Open();  // and the next one starts anew
  EXPECT_TRUE(PublishUntilDone(RequestFor("v1", "/pods/a")).ok());
  EXPECT_EQ(daemon_.requests().size(), 2U);
}

TEST_F(Background, AnotherSecretStartsAnew) {
  PublishRequest request = RequestFor("v1", "/pods/a");
  EXPECT_CODE(node_->Publish(Context{}.WithTimeout(milliseconds(10)), request),
              Code::kDeadlineExceeded);
  AwaitMounts(1);
  Open(Error(Code::kUnauthenticated, "401"));
  while (daemon_.requests().size() == 1) {
    // The old operation may still be on its way out, and is joined then.
    Open(Error(Code::kUnauthenticated, "401"));
    request.secrets[".dockerconfigjson"] = Secret(R"({"auths":{"r":{"auth":"dTpw"}}})");
    static_cast<void>(node_->Publish(Context{}, request));
  }
  EXPECT_EQ(daemon_.requests().back().registry_auth, request.secrets[".dockerconfigjson"]);
}

TEST_F(Background, ShutdownStopsWhatRuns) {
  EXPECT_CODE(PublishFor(milliseconds(10)), Code::kDeadlineExceeded);
  AwaitMounts(1);
  node_.reset();  // must not hang
  EXPECT_EQ(JournalFiles(), 1U);
}

}  // namespace
}  // namespace davit::csi
