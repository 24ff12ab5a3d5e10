// Reading whole blobs.

#include <fmt/format.h>

#include "common/digest/digest.h"
#include "storage/registry/blob_source.h"
#include "storage/registry/remote_repository.h"

namespace davit::registry {
namespace {

/// A whole blob in as many pieces as the network makes of it.
class WholeRead {
 public:
  WholeRead(Session& session, const oci::Descriptor& blob, const storage::ByteSink& sink)
      : session_(session), blob_(blob), user_sink_(sink) {}

  Status Run(const Context& ctx) {
    DAVIT_TRY(OciDigest::Parse(blob_.digest));
    int failures = 0;
    while (done_ < blob_.size) {
      const std::uint64_t before = done_;
      Status status = Piece(ctx);
      if (status.ok()) break;
      if (sink_failed_ || !IsTransient(status.error())) return status;
      if (done_ > before) failures = 0;  // it moves: the patience starts anew
      if (failures >= session_.shared().options.retries) return status;
      if (!session_.PauseBeforeRetry(ctx, failures++, status.error())) return status;
    }
    const std::string digest = OciDigest::Format(hasher_.Finish());
    if (digest == blob_.digest) return {};
    return Error(Code::kDataLoss, fmt::format("{}: the blob {} arrived with the digest {}",
                                              session_.name(), blob_.digest, digest))
        .WithHint("the registry or a proxy in between has damaged it; try again");
  }

 private:
  /// From where we are to the end, at the first endpoint that gets further.
  Status Piece(const Context& ctx) {
    std::optional<Error> error;
    for (const auto& endpoint : session_.PullOrder(false)) {
      const storage::ByteSink sink = [this](Bytes data) -> Status {
        DAVIT_TRY(user_sink_(data));
        hasher_.Update(data);
        return {};
      };
      RangeRead read{
          .blob = blob_, .range = {done_, blob_.size - done_}, .sink = sink, .may_skip = true};
      Status status = ReadRange(session_, ctx, *endpoint, read);
      done_ += read.delivered;
      if (status.ok()) return status;
      sink_failed_ = read.sink_failed;
      if (sink_failed_ || !ctx.Check("").ok()) return status;
      session_.NoteFailure(*endpoint, status.error());
      if (!error || !endpoint->mirror) error = std::move(status).error();
      if (read.delivered > 0) break;
    }
    return *std::move(error);
  }

  Session& session_;
  const oci::Descriptor& blob_;
  const storage::ByteSink& user_sink_;
  Hasher hasher_{DigestAlgorithm::kSha256};
  std::uint64_t done_ = 0;
  bool sink_failed_ = false;
};

}  // namespace

Status RemoteRepository::ReadBlob(const Context& ctx, const oci::Descriptor& blob,
                                  const storage::ByteSink& sink) {
  return WholeRead(*session_, blob, sink).Run(ctx);
}

Result<std::string> RemoteRepository::GetBlob(const Context& ctx, const oci::Descriptor& blob,
                                              std::uint64_t limit) {
  if (blob.size > limit) {
    return Error(Code::kResourceExhausted, fmt::format("{}: the blob {} has {} bytes, more than {}",
                                                       Describe(), blob.digest, blob.size, limit));
  }
  std::string out;
  DAVIT_TRY(ReadBlob(ctx, blob, [&](Bytes data) -> Status {
    out += AsText(data);
    return {};
  }));
  return out;
}

std::shared_ptr<storage::BlobSource> RemoteRepository::OpenBlob(const oci::Descriptor& blob) {
  return MakeBlobSource(session_, blob);
}

Result<bool> RemoteRepository::HasBlob(const Context& ctx, const oci::Descriptor& blob) {
  DAVIT_TRY(OciDigest::Parse(blob.digest));
  Call call;
  call.what = "look for the blob " + blob.digest;
  call.method = "HEAD";
  call.url = session_->Url(session_->origin(), "blobs/" + blob.digest);
  call.scope = RepositoryScope(session_->repository(), "pull");
  // A redirect to a store says that it is there; URLs signed for GET do not take a HEAD.
  call.follow_redirects = false;
  return session_->Retry(ctx, [&]() -> Result<bool> {
    DAVIT_TRY_ASSIGN(const Reply reply, session_->Send(ctx, session_->origin(), call));
    const int status = reply.response.status;
    if (status == 404) return false;
    if (status >= 200 && status < 400) return true;
    return session_->Unexpected(reply, session_->origin(), call);
  });
}

}  // namespace davit::registry
