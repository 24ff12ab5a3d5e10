#pragma once
// An OCI registry in this process that misbehaves on demand. Real registries are used wherever they
// can show the same; this one exists for faults, for counting, and to model a link.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace davit::testing {

/// What to do wrong, to which requests.
struct Fault {
  enum class Kind {
    kStatus,       // do what is asked, answer with `status` (and Retry-After if retry_after >= 0)
    kRefuse,       // the same answer, and nothing is done
    kReset,        // reset the connection after `offset` bytes of the body
    kShortBody,    // close it there, although Content-Length promises more
    kWrongRange,   // Content-Range says another place than was asked
    kIgnoreRange,  // 200 with the whole blob
    kHtml,         // 200 with an HTML page
    kFlipByte,     // one byte of the blob, at `offset` of it, arrives changed; requests that do not
                   // ask for this byte neither match nor count
    kGarbage,      // a body of the right length with every byte changed
    kDelay,        // nothing wrong but `delay_ms`
    kWrongDigest,  // Docker-Content-Digest of something else
    kNoDigest,     // HEAD and GET without Docker-Content-Digest
    kDrip,         // `bytes_per_second`
    kHang,         // no answer at all
    kRedirect,     // 307 to `location`
    kExpiredToken,  // 401 as if the token had expired; the next one is accepted
  };
  Kind kind = Kind::kStatus;
  std::string path;    // part of the path; empty: every request
  std::string method;  // empty: every method
  int skip = 0;        // so many matching requests are answered properly first
  int times = 1;       // then so many are not; -1: for ever
  int status = 503;
  int retry_after = -1;
  int delay_ms = 0;  // before the answer, whatever the kind
  std::uint64_t offset = 0;
  std::uint64_t bytes_per_second = 0;
  std::string location;
};

/// One request as it came in.
struct LoggedRequest {
  std::string method, path, query, range, authorization, accept;
  int status = 0;
  std::uint64_t body_bytes = 0;  // sent
  double seconds = 0;            // since Start
};

/// Thread-safe. Listens on 127.0.0.1 only.
class FakeRegistry {
 public:
  struct Options {
    int port = 0;
    enum class Auth { kNone, kBasic, kBearer } auth = Auth::kNone;
    std::map<std::string, std::string> users;
    int token_seconds = 300;
    int latency_ms = 0;
    std::uint64_t bytes_per_second = 0;  // all connections together; 0: no limit
    bool referrers_api = true;
    bool relative_locations = false;
    bool tag_delete = true;
    std::uint64_t chunk_min_length = 0;
    std::size_t page_size = 1000;
    int hold_uploads = 0;  // uploads wait until so many are sent at once; see UploadGate
    std::string realm;     // of the token service; empty: this server's /token
  };
  struct Counters {
    std::uint64_t requests = 0, bytes = 0, connections = 0;
    int most_uploads = 0;  // bodies of blobs in hand at the same time, since Start
  };

  /// Aborts the test program when it cannot listen.
  static std::unique_ptr<FakeRegistry> Start(const Options& options);
  virtual ~FakeRegistry() = default;
  virtual std::string host() const = 0;  // "127.0.0.1:port"
  virtual int port() const = 0;

  /// "sha256:…"
  virtual std::string AddBlob(const std::string& repository, std::string content) = 0;
  /// A file that stays where it is; every repository has it.
  virtual void AddBlobFile(const std::string& digest, const std::string& path) = 0;
  virtual std::string AddManifest(const std::string& repository, const std::string& tag,
                                  const std::string& media_type, const std::string& content) = 0;
  virtual bool HasBlob(const std::string& digest) const = 0;

  virtual void SetFault(const Fault& fault) = 0;
  virtual void ClearFaults() = 0;
  /// Faults with a number of times that is not used up.
  virtual int PendingFaults() const = 0;
  /// True: refuses connections and cuts those there are, until false.
  virtual void SetAway(bool away) = 0;
  /// All tokens given out so far are refused from now on.
  virtual void ExpireTokens() = 0;

  virtual std::vector<LoggedRequest> requests() const = 0;
  virtual Counters counters() const = 0;
  virtual void ClearLog() = 0;
};

}  // namespace davit::testing
