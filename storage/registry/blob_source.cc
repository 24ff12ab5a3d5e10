#include "storage/registry/blob_source.h"

#include <fmt/format.h>

#include <charconv>

#include "common/base/log.h"

namespace davit::registry {
namespace {

constexpr std::chrono::seconds kMemoLife{60};

std::optional<std::uint64_t> Number(std::optional<std::string_view> text) {
  std::uint64_t value = 0;
  if (!text) return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return value;
}

/// Holds a reply against what was asked, and its body against the length.
class RangeChecker {
 public:
  RangeChecker(RangeRead& read, std::string where) : read_(read), where_(std::move(where)) {}

  Status Headers(int status, const http::Headers& headers) {
    if (const auto coding = headers.Get("Content-Encoding"); coding && *coding != "identity")
      return Lie(fmt::format("the body is encoded as '{}'", coding->substr(0, 40)));
    left_ = read_.range.length;
    if (status == 206) return Partial(headers);
    const bool whole = read_.range.offset == 0 && read_.range.length == read_.blob.size;
    if (!whole && !read_.may_skip) {
      return Error(Code::kUnavailable,
                   fmt::format("{}: 200 instead of 206: ranges are not supported there", where_));
    }
    const auto length = Number(headers.Get("Content-Length"));
    if (length && *length != read_.blob.size)
      return Lie(fmt::format("{} bytes announced, the blob has {}", *length, read_.blob.size));
    skip_ = read_.range.offset;
    return {};
  }

  Status Data(Bytes data) {
    if (skip_ > 0) {
      const std::size_t n = std::min<std::uint64_t>(skip_, data.size());
      skip_ -= n;
      data = data.subspan(n);
    }
    if (data.empty()) return {};
    if (data.size() > left_) return Lie("more bytes than asked for");
    Status status = read_.sink(data);
    read_.sink_failed = !status.ok();
    if (!status.ok()) return status;
    left_ -= data.size();
    read_.delivered += data.size();
    return {};
  }

  Status End() const {
    if (left_ == 0) return {};
    return Error(Code::kUnavailable,
                 fmt::format("{}: the body ends {} bytes early", where_, left_));
  }

 private:
  Error Lie(const std::string& what) const {
    return Error(Code::kDataLoss, fmt::format("{}: {}", where_, what))
        .WithHint("a proxy in between, or the registry, answers something else than was asked");
  }

  Status Partial(const http::Headers& headers) {
    const auto value = headers.Get("Content-Range");
    if (!value) return Lie("206 without a Content-Range");
    Result<http::ContentRange> got = http::ContentRange::Parse(*value);
    if (!got.ok()) return std::move(got).error().WithContext(where_);
    if (got->range != read_.range) {
      return Lie(fmt::format("asked for {} bytes at {}, got {} at {}", read_.range.length,
                             read_.range.offset, got->range.length, got->range.offset));
    }
    if (got->total && *got->total != read_.blob.size)
      return Lie(fmt::format("the blob has {} bytes there, not {}", *got->total, read_.blob.size));
    const auto length = Number(headers.Get("Content-Length"));
    if (length && *length != read_.range.length)
      return Lie(fmt::format("{} bytes announced for a range of {}", *length, read_.range.length));
    return {};
  }

  RangeRead& read_;
  const std::string where_;
  std::uint64_t left_ = 0;
  std::uint64_t skip_ = 0;
};

/// One try at one URL. Session::Send says in its errors what was read. `good` says whether the
/// reply was of the right kind at all.
Status ReadOnce(Session& session, const Context& ctx, const Endpoint& endpoint, const Call& call,
                RangeRead& read, bool& good) {
  good = false;
  RangeChecker checker(read, endpoint.Origin());
  const BodySink sink{
      [&](int status, const http::Headers& h) { return checker.Headers(status, h); },
      [&](Bytes data) { return checker.Data(data); }};
  DAVIT_TRY_ASSIGN(const Reply reply, session.Send(ctx, endpoint, call, &sink));
  if (reply.response.status != 200 && reply.response.status != 206)
    return session.Unexpected(reply, endpoint, call);
  if (Status end = checker.End(); !end.ok())
    return std::move(end).error().WithContext(session.name() + ": " + call.what);
  good = true;
  if (read.memo != nullptr && reply.redirected) read.memo->Put(endpoint.Origin(), reply.url);
  return {};
}

class RegistryBlobSource final : public storage::BlobSource {
 public:
  RegistryBlobSource(std::shared_ptr<Session> session, const oci::Descriptor& blob)
      : session_(std::move(session)), blob_(blob), memo_(session_->shared().clock) {}

  std::string Describe() const override { return session_->name() + "@" + blob_.digest; }
  std::string Host() const override { return session_->origin().url.host; }
  Result<std::uint64_t> Size(const Context&) override { return blob_.size; }

  Status Read(const Context& ctx, ByteRange range, storage::SourceRead& how,
              const storage::ByteSink& sink) override {
    const auto end = CheckedAdd(range.offset, range.length);
    if (!end || *end > blob_.size) {
      return Error(Code::kInvalidArgument,
                   fmt::format("{}: {} bytes at {} are outside its {} bytes", Describe(),
                               range.length, range.offset, blob_.size));
    }
    if (range.length == 0) return {};
    bool untouched = true;
    Status status = ReadAnywhere(ctx, range, how, sink, untouched);
    // A proxy that mixed up one reply may well get the next one right.
    if (!status.ok() && untouched && status.error().code() == Code::kDataLoss)
      status = ReadAnywhere(ctx, range, how, sink, untouched);
    return status;
  }

 private:
  /// Asks the endpoints in order. `untouched`: the sink has seen nothing, and the caller still
  /// wants it.
  Status ReadAnywhere(const Context& ctx, ByteRange range, storage::SourceRead& how,
                      const storage::ByteSink& sink, bool& untouched) {
    std::optional<Error> error;
    for (const auto& endpoint : session_->PullOrder(false, how.avoid_endpoint)) {
      RangeRead read{.blob = blob_, .range = range, .sink = sink, .memo = &memo_};
      how.served_by = endpoint->Origin();
      Status status = ReadRange(*session_, ctx, *endpoint, read);
      if (status.ok()) {
        if (endpoint->mirror) session_->shared().health.Succeeded(endpoint->Origin());
        return status;
      }
      untouched = read.delivered == 0 && !read.sink_failed && ctx.Check("").ok();
      if (read.sink_failed || !ctx.Check("").ok()) return status;
      session_->NoteFailure(*endpoint, status.error());
      // The sink cannot take bytes back; what is there must not be mixed with another's.
      if (read.delivered > 0) return status;
      // The registry's own word is worth more than a mirror's.
      if (!error || !endpoint->mirror) error = std::move(status).error();
    }
    return *std::move(error);
  }

  const std::shared_ptr<Session> session_;
  const oci::Descriptor blob_;
  RedirectMemo memo_;
};

}  // namespace

std::string RedirectMemo::Get(const std::string& origin) {
  MutexLock lock(mutex_);
  const auto it = entries_.find(origin);
  if (it == entries_.end() || clock_.Now() >= it->second.until) return {};
  return it->second.url;
}

void RedirectMemo::Put(const std::string& origin, const std::string& url) {
  MutexLock lock(mutex_);
  const auto it = entries_.find(origin);
  // Its life counts from the redirect, not from the last use.
  if (it != entries_.end() && it->second.url == url && clock_.Now() < it->second.until) return;
  entries_[origin] = Entry{url, clock_.Now() + kMemoLife};
}

void RedirectMemo::Drop(const std::string& origin) {
  MutexLock lock(mutex_);
  entries_.erase(origin);
}

Status ReadRange(Session& session, const Context& ctx, const Endpoint& endpoint, RangeRead& read) {
  Call call;
  call.what = fmt::format("read {} bytes at {} of {}", read.range.length, read.range.offset,
                          read.blob.digest);
  call.scope = RepositoryScope(session.repository(), "pull");
  const bool whole = read.range.offset == 0 && read.range.length == read.blob.size;
  if (!whole) {
    call.headers.Add("Range", fmt::format("bytes={}-{}", read.range.offset,
                                          read.range.offset + read.range.length - 1));
  }
  bool good = false;
  if (read.memo != nullptr) {
    call.url = read.memo->Get(endpoint.Origin());
    if (!call.url.empty()) {
      const Status status = ReadOnce(session, ctx, endpoint, call, read, good);
      if (good) return status;
      read.memo->Drop(endpoint.Origin());
      if (read.delivered > 0 || read.sink_failed || !ctx.Check("").ok()) return status;
    }
  }
  call.url = session.Url(endpoint, "blobs/" + read.blob.digest);
  return ReadOnce(session, ctx, endpoint, call, read, good);
}

std::shared_ptr<storage::BlobSource> MakeBlobSource(std::shared_ptr<Session> session,
                                                    const oci::Descriptor& blob) {
  return std::make_shared<RegistryBlobSource>(std::move(session), blob);
}

}  // namespace davit::registry
