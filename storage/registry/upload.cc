#include "storage/registry/upload.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "common/base/log.h"

namespace davit::registry {
namespace {

constexpr std::uint64_t kMinChunk = 64 << 10;
constexpr std::uint64_t kMaxChunk = 4ULL << 30;
constexpr int kMaxRestarts = 2;  // after "your digest is wrong" or a lost session

std::optional<std::uint64_t> Number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// The number of bytes that "Range: 0-N" stands for; nothing when it is absent or odd.
std::optional<std::uint64_t> ReceivedBytes(const http::Headers& headers) {
  auto value = headers.Get("Range");
  if (!value) return std::nullopt;
  if (value->starts_with("bytes=")) value->remove_prefix(6);
  const std::size_t dash = value->find('-');
  if (dash == std::string_view::npos || Number(value->substr(0, dash)) != 0) return std::nullopt;
  const auto last = Number(value->substr(dash + 1));
  if (!last || *last == ~0ULL) return std::nullopt;
  // "0-0" is also how registries say that they have nothing yet.
  return *last == 0 ? 0 : *last + 1;
}

/// The session is gone or has got into a state of its own: start over.
bool NeedsRestart(const Error& error) {
  return error.code() == Code::kNotFound || error.code() == Code::kFailedPrecondition ||
         error.code() == Code::kDataLoss;
}

}  // namespace

Upload::Upload(Session& session, const BlobContent& content)
    : session_(session), content_(content) {}

Call Upload::MakeCall(std::string_view method, const std::string& url, std::string what) const {
  Call call;
  call.what = std::move(what);
  call.method = std::string(method);
  call.url = url;
  call.scope = RepositoryScope(session_.repository(), "pull,push");
  return call;
}

void Upload::AddBody(Call& call, std::uint64_t offset, std::uint64_t size) const {
  call.headers.Add("Content-Type", "application/octet-stream");
  call.upload = [this, offset, size] {
    http::UploadBody body;
    body.size = size;
    body.read = [this, offset, size](std::uint64_t at, MutableBytes out) -> Result<std::size_t> {
      const std::uint64_t position = offset + at;
      const std::size_t n = std::min<std::uint64_t>(out.size(), size - at);
      if (n == 0) return std::size_t{0};
      DAVIT_TRY_ASSIGN(const std::size_t got, content_.read_at(position, out.first(n)));
      if (got == 0 || got > n) {
        return Error(Code::kDataLoss,
                     fmt::format("the content of {} ends at byte {} of {}",
                                 content_.descriptor.digest, position, content_.descriptor.size));
      }
      return got;
    };
    return body;
  };
}

Error Upload::Failed(const Reply& reply, const Call& call) const {
  return session_.Unexpected(reply, session_.origin(), call);
}

Status Upload::TakeLocation(const Reply& reply) {
  if (!reply.response.headers.Get("Location")) {
    // Only the first answer has to name it; afterwards the session stays where it is.
    if (!location_.empty()) return {};
    return Session::Astray(fmt::format("{}: the upload of {} was started without a Location",
                                       session_.name(), content_.descriptor.digest));
  }
  DAVIT_TRY_ASSIGN(const http::Url base, http::Url::Parse(reply.url));
  Result<http::Url> url = session_.CheckedLocation(session_.origin(), base, reply.response.headers);
  if (!url.ok()) {
    return std::move(url).error().WithContext(
        fmt::format("{}: upload {}", session_.name(), content_.descriptor.digest));
  }
  location_ = url->ToString();
  return {};
}

std::string Upload::FinalUrl() const {
  const char separator = location_.find('?') == std::string::npos ? '?' : '&';
  return fmt::format("{}{}digest={}", location_, separator,
                     http::UrlEncode(content_.descriptor.digest));
}

Status Upload::Start(const Context& ctx) {
  const Call call = MakeCall("POST", session_.Url(session_.origin(), "blobs/uploads/"),
                             "start to upload " + content_.descriptor.digest);
  location_.clear();
  offset_ = 0;
  DAVIT_TRY_ASSIGN(const Reply reply, session_.Retry(ctx, [&] {
    return session_.Expect(ctx, session_.origin(), call, {202});
  }));
  if (const auto value = reply.response.headers.Get("OCI-Chunk-Min-Length"))
    min_chunk_ = std::min(Number(*value).value_or(0), kMaxChunk);
  return TakeLocation(reply);
}

bool Upload::Small() const {
  const std::uint64_t chunk =
      std::max({session_.shared().options.upload_chunk_bytes, min_chunk_, kMinChunk});
  return content_.descriptor.size <= chunk;
}

Status Upload::Monolithic(const Context& ctx) {
  Call call = MakeCall("PUT", FinalUrl(), "upload " + content_.descriptor.digest);
  AddBody(call, 0, content_.descriptor.size);
  DAVIT_TRY_ASSIGN(const Reply reply, session_.Send(ctx, session_.origin(), call));
  if (reply.response.status != 201 && reply.response.status != 204) return Failed(reply, call);
  location_.clear();
  return {};
}

Status Upload::AskOffset(const Context& ctx) {
  const Call call =
      MakeCall("GET", location_, "ask how much is there of " + content_.descriptor.digest);
  DAVIT_TRY_ASSIGN(const Reply reply, session_.Retry(ctx, [&] {
    return session_.Expect(ctx, session_.origin(), call, {204, 202, 200});
  }));
  offset_ = ReceivedBytes(reply.response.headers).value_or(0);
  DAVIT_TRY(TakeLocation(reply));
  if (offset_ <= content_.descriptor.size) return {};
  return Error(Code::kDataLoss,
               fmt::format("{}: the registry has {} bytes of {}, which has {}", session_.name(),
                           offset_, content_.descriptor.digest, content_.descriptor.size));
}

Status Upload::SendChunk(const Context& ctx, std::uint64_t size) {
  Call call = MakeCall(
      "PATCH", location_,
      fmt::format("upload {} bytes at {} of {}", size, offset_, content_.descriptor.digest));
  AddBody(call, offset_, size);
  call.headers.Add("Content-Range", fmt::format("{}-{}", offset_, offset_ + size - 1));
  DAVIT_TRY_ASSIGN(const Reply reply, session_.Send(ctx, session_.origin(), call));
  const int status = reply.response.status;
  if (status == 416) {
    // We and the registry disagree about what is there; its count is the one that matters.
    return Failed(reply, call).WithCode(Code::kUnavailable);
  }
  if (status != 202 && status != 201 && status != 204) return Failed(reply, call);
  DAVIT_TRY(TakeLocation(reply));
  const std::uint64_t expected = offset_ + size;
  offset_ = ReceivedBytes(reply.response.headers).value_or(expected);
  if (offset_ <= content_.descriptor.size) return {};
  return Error(Code::kDataLoss, fmt::format("{}: the registry counts {} bytes of {}",
                                            session_.name(), offset_, content_.descriptor.digest));
}

Status Upload::Finish(const Context& ctx) {
  const Call call =
      MakeCall("PUT", FinalUrl(), "finish the upload of " + content_.descriptor.digest);
  DAVIT_TRY_ASSIGN(const Reply reply, session_.Send(ctx, session_.origin(), call));
  if (reply.response.status != 201 && reply.response.status != 204) return Failed(reply, call);
  location_.clear();
  return {};
}

Status Upload::Chunked(const Context& ctx) {
  const std::uint64_t chunk =
      std::max({session_.shared().options.upload_chunk_bytes, min_chunk_, kMinChunk});
  int failures = 0;
  while (true) {
    const std::uint64_t before = offset_;
    const std::uint64_t left = content_.descriptor.size - offset_;
    Status status = left > 0 ? SendChunk(ctx, std::min(left, chunk)) : Finish(ctx);
    if (status.ok() && left == 0) return {};
    if (status.ok() && offset_ > before) {
      failures = 0;
      continue;
    }
    if (status.ok()) {
      status = Error(Code::kUnavailable, fmt::format("{}: the upload of {} does not get on",
                                                     session_.name(), content_.descriptor.digest));
    }
    if (!IsTransient(status.error()) || failures >= session_.shared().options.retries)
      return status;
    if (!session_.PauseBeforeRetry(ctx, failures++, status.error())) return status;
    DAVIT_TRY(AskOffset(ctx));
    // Any byte that has arrived is progress, also when the answer got lost.
    if (offset_ > before) failures = 0;
  }
}

void Upload::Cancel(const Context& ctx) {
  if (location_.empty()) return;
  // The caller may have given up already; the registry should not keep the pieces for that.
  Context brief;
  brief.cause = ctx.cause;
  brief = brief.WithTimeout(std::chrono::seconds(2));
  const Call call = MakeCall("DELETE", location_, "cancel an upload");
  const Result<Reply> reply = session_.Send(brief, session_.origin(), call);
  if (!reply.ok()) log::Debug("an upload was not cancelled", {{"error", reply.error()}});
  location_.clear();
}

Status Upload::Run(const Context& ctx) {
  int failures = 0, restarts = 0;
  while (true) {
    Status status = Start(ctx);
    if (status.ok()) status = Small() ? Monolithic(ctx) : Chunked(ctx);
    if (status.ok()) return status;
    Cancel(ctx);
    if (!ctx.Check("").ok()) return status;
    bool again = false;
    if (IsTransient(status.error()) && Small()) {
      again = failures < session_.shared().options.retries &&
              session_.PauseBeforeRetry(ctx, failures, status.error());
      ++failures;
    } else if (NeedsRestart(status.error())) {
      again = restarts < kMaxRestarts;
      ++restarts;
    }
    if (!again) return status;
  }
}

}  // namespace davit::registry
