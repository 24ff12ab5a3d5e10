#include "csi/core/usage_probe.h"

#include <fmt/format.h>

#include <optional>
#include <thread>

#include "common/base/thread_pool.h"

namespace davit::csi {

namespace {
constexpr std::size_t kMaxWaiting = 64;

struct Question {
  TimePoint asked = std::chrono::steady_clock::now();
  std::optional<Result<FsUsage>> answer;
};
}  // namespace

struct UsageProbe::State {
  explicit State(std::shared_ptr<Mounter> m) : mounter(std::move(m)) {}
  const std::shared_ptr<Mounter> mounter;
  Mutex mutex;
  CondVar answered;
  std::map<std::string, std::shared_ptr<Question>> open DAVIT_GUARDED_BY(mutex);
};

UsageProbe::UsageProbe(std::shared_ptr<Mounter> mounter)
    : state_(std::make_shared<State>(std::move(mounter))) {}

Result<FsUsage> UsageProbe::Ask(const Context& ctx, const std::string& path) {
  MutexLock lock(state_->mutex);
  std::shared_ptr<Question> question;
  if (const auto it = state_->open.find(path); it != state_->open.end()) {
    question = it->second;
  } else {
    if (state_->open.size() >= kMaxWaiting) {
      return Error(Code::kResourceExhausted, "too many mounts do not answer");
    }
    question = std::make_shared<Question>();
    state_->open[path] = question;
    // Detached: see the header.
    std::thread([state = state_, question, path] {
      SetThreadName("csi-statvfs");
      Result<FsUsage> usage = state->mounter->Usage(path);
      MutexLock inner(state->mutex);
      question->answer = std::move(usage);
      state->open.erase(path);
      state->answered.NotifyAll();
    }).detach();
  }
  while (!question->answer) {
    if (state_->answered.Wait(state_->mutex, ctx) || question->answer) continue;
    const auto age = std::chrono::duration_cast<std::chrono::seconds>(
        std::chrono::steady_clock::now() - question->asked);
    return Error(Code::kDeadlineExceeded,
                 fmt::format("{} has not answered for {} s", path, age.count()));
  }
  return *question->answer;
}

}  // namespace davit::csi
