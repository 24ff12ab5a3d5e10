#pragma once
// OCI distribution 1.1 client, and the same interface over an OCI layout directory.
// Sources: github.com/opencontainers/distribution-spec (spec.md), Docker's token authentication.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/context.h"
#include "common/http/client.h"
#include "storage/blob/blob.h"
#include "storage/registry/credentials.h"
#include "storage/registry/oci.h"
#include "storage/registry/reference.h"

namespace davit::registry {

/// A manifest or index as stored, with its verified descriptor.
struct Document {
  oci::Descriptor descriptor;
  std::string content;
};

/// Content to push. `open` may be called again after a failure; it starts at `offset`.
struct BlobContent {
  oci::Descriptor descriptor;  // digest and size are known beforehand
  std::function<Result<std::size_t>(std::uint64_t offset, MutableBytes)> read_at;
};

/// One repository of one registry, or one OCI layout. Thread-safe. All errors name the repository
/// and what was asked: kUnauthenticated (401), kPermissionDenied (403), kNotFound (404),
/// kUnavailable (network, 5xx, 429 with its Retry-After), kDataLoss (digest or range mismatch).
/// Idempotent calls are retried a few times within the context's deadline; blob reads are not
/// (see BlobSource).
class Repository {
 public:
  virtual ~Repository() = default;
  virtual std::string Describe() const = 0;

  /// Digest, size and media type of a tag or digest, by HEAD (GET where HEAD has no digest).
  virtual Result<oci::Descriptor> Resolve(const Context& ctx, const std::string& tag_or_digest) = 0;
  /// At most 4 MiB; the digest is verified (against the name when it is a digest).
  virtual Result<Document> GetManifest(const Context& ctx, const std::string& tag_or_digest) = 0;
  /// A small blob, verified as a whole; kResourceExhausted above `limit` bytes.
  virtual Result<std::string> GetBlob(const Context& ctx, const oci::Descriptor& blob,
                                      std::uint64_t limit) = 0;
  /// Streams a whole blob, resuming after interruptions; verified at its end (kDataLoss then).
  virtual Status ReadBlob(const Context& ctx, const oci::Descriptor& blob,
                          const storage::ByteSink& sink) = 0;
  /// Ranged, unverified reads for the cache.
  virtual std::shared_ptr<storage::BlobSource> OpenBlob(const oci::Descriptor& blob) = 0;
  virtual Result<bool> HasBlob(const Context& ctx, const oci::Descriptor& blob) = 0;
  /// Nothing is sent when the blob is there already. Monolithic when small, else in chunks with
  /// resume. Returns false when it was there.
  virtual Result<bool> PushBlob(const Context& ctx, const BlobContent& content) = 0;
  /// Cross-repository mount; false when the registry would rather have the bytes.
  virtual Result<bool> MountBlob(const Context& ctx, const oci::Descriptor& blob,
                                 const std::string& from_repository) = 0;
  /// `tag_or_digest` empty: by digest. Returns the stored descriptor. A manifest with a subject is
  /// also entered under the fall-back tag where the registry has no referrers API.
  virtual Result<oci::Descriptor> PushManifest(const Context& ctx, const std::string& tag_or_digest,
                                               std::string_view media_type,
                                               const std::string& content) = 0;
  virtual Result<std::vector<std::string>> ListTags(const Context& ctx) = 0;
  /// By the referrers API, else by the fall-back tag; none is success. Empty type: all.
  virtual Result<std::vector<oci::Descriptor>> Referrers(const Context& ctx,
                                                         const std::string& digest,
                                                         const std::string& artifact_type) = 0;
  /// A tag or a digest (all tags to it go); kUnsupported where the registry refuses deletion.
  virtual Status DeleteManifest(const Context& ctx, const std::string& tag_or_digest) = 0;
};

struct RegistryOptions {
  /// Hosts that may be spoken to over plain HTTP ("localhost:5000"); loopback is not implied.
  std::vector<std::string> plain_http_hosts;
  bool plain_http = false;  // for all hosts; for command lines
  http::TlsOptions tls;
  std::string proxy;
  std::string hosts_dir;  // containerd's certs.d; empty: no mirrors
  std::uint64_t upload_chunk_bytes = 32ULL << 20;
  std::chrono::milliseconds connect_timeout{5000};
  std::chrono::milliseconds stall_timeout{20000};
  int retries = 4;  // of idempotent calls
};

/// Makes repositories; keeps tokens and the health of mirrors for all of them. Thread-safe.
class Registries {
 public:
  /// `http` and `clock` must outlive it.
  static std::unique_ptr<Registries> Create(const RegistryOptions& options, http::Client& http,
                                            Clock& clock,
                                            std::shared_ptr<CredentialProvider> credentials);
  virtual ~Registries() = default;
  /// The repository of a reference; no traffic yet. For a layout the directory is created by the
  /// first push. `credentials` overrides the default provider (a volume's own secret).
  virtual Result<std::shared_ptr<Repository>> Open(
      const Reference& reference, std::shared_ptr<CredentialProvider> credentials = nullptr) = 0;
};

}  // namespace davit::registry
