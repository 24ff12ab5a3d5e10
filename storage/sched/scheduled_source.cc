#include "storage/sched/scheduled_source.h"

#include <utility>

namespace davit::storage {
namespace {

class ScheduledSource final : public BlobSource {
 public:
  ScheduledSource(std::shared_ptr<BlobSource> source, Scheduler& scheduler)
      : source_(std::move(source)), scheduler_(scheduler) {}
  std::string Describe() const override { return source_->Describe(); }
  std::string Host() const override { return source_->Host(); }
  Result<std::uint64_t> Size(const Context& ctx) override { return source_->Size(ctx); }
  Status Read(const Context& ctx, ByteRange range, SourceRead& how, const ByteSink& sink) override {
    return scheduler_.Fetch(ctx, *source_, range, how, sink);
  }

 private:
  const std::shared_ptr<BlobSource> source_;
  Scheduler& scheduler_;
};

}  // namespace

std::shared_ptr<BlobSource> WithScheduler(std::shared_ptr<BlobSource> source,
                                          Scheduler& scheduler) {
  return std::make_shared<ScheduledSource>(std::move(source), scheduler);
}

}  // namespace davit::storage
