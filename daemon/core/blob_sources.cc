#include "daemon/core/blob_sources.h"

#include <fmt/format.h>

#include <algorithm>

namespace davit::daemon {
namespace {

// Another mount may be allowed what this one is not, or its repository may still have the blob.
bool OthersMayDo(Code code) {
  return code == Code::kUnauthenticated || code == Code::kPermissionDenied ||
         code == Code::kNotFound;
}

}  // namespace

std::vector<SharedSource::Item> SharedSource::Snapshot() const {
  const MutexLock lock(mutex_);
  return sources_;
}

Error SharedSource::Gone() const {
  return Error(Code::kCancelled, fmt::format("blob {}: nothing uses it any more", id_.value));
}

std::string SharedSource::Describe() const {
  const auto all = Snapshot();
  return all.empty() ? "blob " + id_.value : all.front().second->Describe();
}

std::string SharedSource::Host() const {
  const auto all = Snapshot();
  return all.empty() ? std::string() : all.front().second->Host();
}

Result<std::uint64_t> SharedSource::Size(const Context& ctx) {
  Error error = Gone();
  for (const auto& [token, source] : Snapshot()) {
    auto size = source->Size(ctx);
    if (size.ok() || !OthersMayDo(size.error().code())) return size;
    error = std::move(size).error();
    Demote(token);
  }
  return error;
}

Status SharedSource::Read(const Context& ctx, ByteRange range, storage::SourceRead& how,
                          const storage::ByteSink& sink) {
  bool came = false;
  bool refused = false;  // by who reads: no fault of the source
  Status status = ReadFromAny(ctx, range, how, [&](Bytes data) -> Status {
    if (!std::exchange(came, true)) {
      const MutexLock lock(mutex_);
      failure_.reset();
    }
    Status taken = sink(data);
    refused = !taken.ok();
    return taken;
  });
  const bool background = ctx.cause == Cause::kPrefetch || ctx.cause == Cause::kBackfill;
  if (!status && background && !refused && status.error().code() != Code::kCancelled) {
    const MutexLock lock(mutex_);
    failure_ = status.error();
  }
  return status;
}

std::optional<Error> SharedSource::background_failure() const {
  const MutexLock lock(mutex_);
  return failure_;
}

Status SharedSource::ReadFromAny(const Context& ctx, ByteRange range, storage::SourceRead& how,
                                 const storage::ByteSink& sink) {
  Error error = Gone();
  bool delivered = false;
  const storage::ByteSink counting = [&](Bytes data) {
    delivered = true;
    return sink(data);
  };
  for (const auto& [token, source] : Snapshot()) {
    Status status = source->Read(ctx, range, how, counting);
    if (status.ok() || delivered || !OthersMayDo(status.error().code())) return status;
    error = std::move(status).error();
    Demote(token);
  }
  return error;
}

void SharedSource::Add(std::uint64_t token, std::shared_ptr<storage::BlobSource> source) {
  const MutexLock lock(mutex_);
  sources_.emplace_back(token, std::move(source));
}

bool SharedSource::Remove(std::uint64_t token) {
  const MutexLock lock(mutex_);
  std::erase_if(sources_, [&](const Item& item) { return item.first == token; });
  return sources_.empty();
}

void SharedSource::Demote(std::uint64_t token) {
  const MutexLock lock(mutex_);
  const auto it = std::ranges::find(sources_, token, &Item::first);
  if (it != sources_.end()) std::rotate(it, it + 1, sources_.end());
}

BlobSources::Share::~Share() {
  if (shared_ == nullptr) return;
  if (shared_->Remove(token_)) owner_->on_unused_(id_);
}

BlobSources::Share BlobSources::Add(const storage::BlobId& id,
                                    std::shared_ptr<storage::BlobSource> source) {
  const MutexLock lock(mutex_);
  std::erase_if(sources_, [](const auto& item) { return item.second.expired(); });
  auto shared = GetLocked(id);
  const std::uint64_t token = ++last_token_;
  shared->Add(token, std::move(source));
  return {this, id, token, std::move(shared)};
}

std::shared_ptr<storage::BlobSource> BlobSources::Get(const storage::BlobId& id) {
  const MutexLock lock(mutex_);
  return GetLocked(id);
}

std::optional<Error> BlobSources::BackgroundFailure(const storage::BlobId& id) const {
  std::shared_ptr<SharedSource> shared;
  {
    const MutexLock lock(mutex_);
    const auto it = sources_.find(id);
    if (it != sources_.end()) shared = it->second.lock();
  }
  return shared == nullptr ? std::nullopt : shared->background_failure();
}

std::shared_ptr<SharedSource> BlobSources::GetLocked(const storage::BlobId& id) {
  auto& slot = sources_[id];
  auto shared = slot.lock();
  if (shared == nullptr) {
    shared = std::make_shared<SharedSource>(id);
    slot = shared;
  }
  return shared;
}

}  // namespace davit::daemon
