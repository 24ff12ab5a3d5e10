#pragma once
// One upload session of a blob: start, pieces, resume, finish.

#include <string>

#include "storage/registry/session.h"

namespace davit::registry {

class Upload {
 public:
  Upload(Session& session, const BlobContent& content);

  /// Sends the whole blob; starts over or resumes as errors permit.
  Status Run(const Context& ctx);

 private:
  Status Start(const Context& ctx);
  /// Everything in one PUT.
  Status Monolithic(const Context& ctx);
  /// PATCH by PATCH, then an empty PUT. Goes on where the registry says that it is.
  Status Chunked(const Context& ctx);
  Status SendChunk(const Context& ctx, std::uint64_t size);
  Status AskOffset(const Context& ctx);
  Status Finish(const Context& ctx);
  void Cancel(const Context& ctx);
  Call MakeCall(std::string_view method, const std::string& url, std::string what) const;
  void AddBody(Call& call, std::uint64_t offset, std::uint64_t size) const;
  Status TakeLocation(const Reply& reply);
  Error Failed(const Reply& reply, const Call& call) const;
  std::string FinalUrl() const;
  bool Small() const;

  Session& session_;
  const BlobContent& content_;
  std::string location_;         // empty: no session
  std::uint64_t min_chunk_ = 0;  // OCI-Chunk-Min-Length
  std::uint64_t offset_ = 0;     // the registry has this much
};

}  // namespace davit::registry
