#pragma once
// Reading blobs of a registry: one range from one endpoint, checked.

#include <map>
#include <memory>
#include <string>

#include "storage/blob/blob.h"
#include "storage/registry/session.h"

namespace davit::registry {

/// Where endpoints have lately redirected a blob's reads to, so that not every range costs two
/// round trips. Signed URLs expire, so it forgets soon. Thread-safe.
class RedirectMemo {
 public:
  explicit RedirectMemo(Clock& clock) : clock_(clock) {}
  std::string Get(const std::string& origin);  // empty: none
  void Put(const std::string& origin, const std::string& url);
  void Drop(const std::string& origin);

 private:
  struct Entry {
    std::string url;
    TimePoint until;
  };
  Clock& clock_;
  Mutex mutex_;
  std::map<std::string, Entry> entries_ DAVIT_GUARDED_BY(mutex_);
};

/// One ranged read and how far it came.
struct RangeRead {
  const oci::Descriptor& blob;
  ByteRange range;  // inside the blob, not empty
  const storage::ByteSink& sink;
  /// Accept a whole blob for a part of it and drop what is before the range.
  bool may_skip = false;
  RedirectMemo* memo = nullptr;

  std::uint64_t delivered = 0;  // out: bytes that the sink took
  bool sink_failed = false;     // out: the error is the sink's
};

/// Reads from one endpoint. Only bytes of exactly that range reach the sink: the status must be 206
/// with the Content-Range that was asked for, or 200 when the whole blob was asked for.
Status ReadRange(Session& session, const Context& ctx, const Endpoint& endpoint, RangeRead& read);

std::shared_ptr<storage::BlobSource> MakeBlobSource(std::shared_ptr<Session> session,
                                                    const oci::Descriptor& blob);

}  // namespace davit::registry
