#include "tests/support/fake_registry/fake_registry.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <thread>

#include "common/base/log.h"
#include "common/http/message.h"
#include "tests/support/fake_registry/routes.h"
#include "tests/support/fake_registry/upload_gate.h"

namespace davit::testing {
namespace {

class Impl final : public FakeRegistry {
 public:
  explicit Impl(const Options& options)
      : options_(options),
        link_(options.bytes_per_second),
        routes_(options, store_),
        uploads_(options.hold_uploads) {}

  void Start() {
    port_ = options_.port;
    Listen();
    routes_.set_origin("http://" + host());
    acceptor_ = std::thread([this] { AcceptLoop(); });
  }

  ~Impl() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      away_ = true;
      CutAll();
      changed_.NotifyAll();
    }
    acceptor_.join();
    for (std::thread& thread : threads_) thread.join();
  }

  std::string host() const override { return fmt::format("127.0.0.1:{}", port_); }
  int port() const override { return port_; }
  std::string AddBlob(const std::string& repository, std::string content) override {
    return store_.PutBlob(repository, std::move(content));
  }
  void AddBlobFile(const std::string& digest, const std::string& path) override {
    store_.PutBlobFile(digest, path);
  }
  std::string AddManifest(const std::string& repository, const std::string& tag,
                          const std::string& media_type, const std::string& content) override {
    return store_.PutManifest(repository, tag, media_type, content);
  }
  bool HasBlob(const std::string& digest) const override {
    return store_.GetBlob("", digest).has_value();
  }

  void SetFault(const Fault& fault) override {
    MutexLock lock(mutex_);
    faults_.push_back(fault);
  }
  void ClearFaults() override {
    MutexLock lock(mutex_);
    faults_.clear();
    changed_.NotifyAll();  // ends hangs
  }
  int PendingFaults() const override {
    MutexLock lock(mutex_);
    return static_cast<int>(
        std::ranges::count_if(faults_, [](const Fault& fault) { return fault.times > 0; }));
  }
  void SetAway(bool away) override {
    MutexLock lock(mutex_);
    away_ = away;
    if (away) {
      CutAll();
    } else {
      Listen();
    }
    changed_.NotifyAll();
  }
  void ExpireTokens() override { routes_.ExpireTokens(); }

  std::vector<LoggedRequest> requests() const override {
    MutexLock lock(mutex_);
    return log_;
  }
  Counters counters() const override {
    MutexLock lock(mutex_);
    Counters out = counters_;
    out.most_uploads = uploads_.most();
    return out;
  }
  void ClearLog() override {
    MutexLock lock(mutex_);
    log_.clear();
    counters_ = {};
  }

 private:
  void Listen() {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port_));
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(fd.get(), generic, size) != 0 || ::listen(fd.get(), 128) != 0 ||
        ::getsockname(fd.get(), generic, &size) != 0) {
      std::perror("fake registry: listen");
      std::abort();
    }
    port_ = ntohs(address.sin_port);
    listener_ = std::move(fd);
  }

  void CutAll() DAVIT_REQUIRES(mutex_) {
    if (listener_) ::shutdown(listener_.get(), SHUT_RDWR);
    for (Connection* connection : connections_) ::shutdown(connection->fd(), SHUT_RDWR);
  }

  void AcceptLoop() {
    while (true) {
      int listener = -1;
      {
        MutexLock lock(mutex_);
        while (away_ && !stopping_) {
          listener_.reset();
          changed_.Wait(mutex_);
        }
        if (stopping_) return;
        listener = listener_.get();
      }
      UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd) continue;
      const int on = 1;
      ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      MutexLock lock(mutex_);
      ++counters_.connections;
      threads_.emplace_back([this, raw = fd.release()] { Serve(UniqueFd(raw)); });
    }
  }

  void Serve(UniqueFd fd) {
    Connection connection(std::move(fd), link_);
    {
      MutexLock lock(mutex_);
      if (away_) return;
      connections_.push_back(&connection);
    }
    while (const auto request = connection.Read()) {
      if (!Answer(connection, *request)) break;
    }
    MutexLock lock(mutex_);
    connections_.remove(&connection);
  }

  bool Answer(Connection& connection, const WireRequest& request) {
    if (options_.latency_ms > 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(options_.latency_ms));
    if (request.path == "/_stats") return Stats(connection);
    WireResponse response;
    const std::optional<Fault> fault = TakeFault(request);
    if (fault && fault->kind == Fault::Kind::kExpiredToken) routes_.ExpireTokens();
    if (fault && fault->delay_ms > 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(fault->delay_ms));
    const bool upload =
        !request.body.empty() && request.path.find("/blobs/uploads/") != std::string::npos;
    if (upload) uploads_.Enter();
    if (!fault || fault->kind != Fault::Kind::kRefuse) response = routes_.Handle(request);
    if (upload) uploads_.Leave();
    if (fault) Apply(*fault, request, response);
    std::size_t entry = 0;
    {
      MutexLock lock(mutex_);
      ++counters_.requests;
      entry = log_.size();
      const double seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
      log_.push_back({request.method, request.path, request.query, request.Header("range"),
                      request.Header("authorization"), request.Header("accept"),
                      response.hang ? 0 : response.status, 0, seconds});
    }
    if (response.hang) return Hang();
    std::uint64_t sent = 0;
    const bool usable = connection.Write(response, request.method == "HEAD", sent);
    MutexLock lock(mutex_);
    counters_.bytes += sent;
    if (entry < log_.size()) log_[entry].body_bytes = sent;
    return usable;
  }

  bool Stats(Connection& connection) {
    WireResponse response;
    response.headers["Content-Type"] = "application/json";
    const Counters now = counters();
    response.body.text = fmt::format(R"({{"requests":{},"bytes":{},"connections":{}}})",
                                     now.requests, now.bytes, now.connections);
    response.close = true;
    std::uint64_t sent = 0;
    return connection.Write(response, false, sent);
  }

  /// Until the fault is cleared or the server ends; the connection is useless then.
  bool Hang() {
    MutexLock lock(mutex_);
    while (!stopping_ && !away_ && !faults_.empty()) changed_.Wait(mutex_);
    return false;
  }

  std::optional<Fault> TakeFault(const WireRequest& request) {
    MutexLock lock(mutex_);
    for (Fault& fault : faults_) {
      const bool matches = request.path.find(fault.path) != std::string::npos &&
                           (fault.method.empty() || fault.method == request.method) &&
                           (fault.kind != Fault::Kind::kFlipByte || Covers(request, fault.offset));
      if (!matches || fault.times == 0) continue;
      if (fault.skip > 0) {
        --fault.skip;
        continue;
      }
      if (fault.times > 0) --fault.times;
      return fault;
    }
    return std::nullopt;
  }

  void Apply(const Fault& fault, const WireRequest& request, WireResponse& response) {
    const bool ranged = response.status == 206;
    switch (fault.kind) {
      case Fault::Kind::kStatus:
      case Fault::Kind::kRefuse:
        response = {};
        response.status = fault.status;
        if (fault.retry_after >= 0)
          response.headers["Retry-After"] = std::to_string(fault.retry_after);
        break;
      case Fault::Kind::kReset:
      case Fault::Kind::kShortBody:
        response.cut = fault.offset;
        response.reset = fault.kind == Fault::Kind::kReset;
        break;
      case Fault::Kind::kWrongRange:
        if (ranged)
          response.headers["Content-Range"] =
              "bytes 1-" + std::to_string(response.body.length()) + "/999999999";
        break;
      case Fault::Kind::kIgnoreRange: {
        WireRequest whole = request;
        whole.headers.erase("range");
        response = routes_.Handle(whole);
        break;
      }
      case Fault::Kind::kHtml:
        response = {};
        response.headers["Content-Type"] = "text/html";
        response.body.text = "<html><body>please log in</body></html>";
        break;
      case Fault::Kind::kFlipByte:
        Flip(fault.offset, response);
        break;
      case Fault::Kind::kWrongDigest:
        response.headers["Docker-Content-Digest"] = Sha256("something else");
        break;
      case Fault::Kind::kNoDigest:
        response.headers.erase("Docker-Content-Digest");
        break;
      case Fault::Kind::kDrip:
        response.drip = fault.bytes_per_second;
        break;
      case Fault::Kind::kHang:
        response.hang = true;
        break;
      case Fault::Kind::kRedirect:
        response = {};
        response.status = 307;
        response.headers["Location"] = fault.location;
        break;
      case Fault::Kind::kGarbage:
        LoadBody(response);
        for (char& c : response.body.text) c = static_cast<char>(~c);
        break;
      case Fault::Kind::kDelay:
      case Fault::Kind::kExpiredToken:
        break;  // done before the request was handled
    }
  }

  /// True when the reply to it, if all is well, holds the byte at this offset of the blob.
  static bool Covers(const WireRequest& request, std::uint64_t offset) {
    const std::string range = request.Header("range");
    if (range.empty()) return true;
    unsigned long long first = 0;
    unsigned long long last = 0;
    const int fields = std::sscanf(range.c_str(), "bytes=%llu-%llu", &first, &last);
    return fields >= 1 && offset >= first && (fields == 1 || offset <= last);
  }

  /// A body that can be changed.
  static void LoadBody(WireResponse& response) {
    if (response.body.file.empty()) return;
    std::string text(response.body.size, '\0');
    auto fd = OpenFile(response.body.file, 0);
    if (!fd.ok() ||
        !PreadFull(fd->get(), std::as_writable_bytes(std::span(text)), response.body.offset).ok())
      return;
    response.body = {};
    response.body.text = std::move(text);
  }

  static void Flip(std::uint64_t blob_offset, WireResponse& response) {
    std::uint64_t first = 0;
    if (const auto range = response.headers.find("Content-Range");
        range != response.headers.end()) {
      const auto parsed = http::ContentRange::Parse(range->second);
      if (parsed.ok()) first = parsed->range.offset;
    }
    LoadBody(response);
    if (blob_offset >= first && blob_offset - first < response.body.text.size())
      response.body.text[blob_offset - first] ^= 0x01;
  }

  const Options options_;
  const TimePoint started_ = std::chrono::steady_clock::now();
  Link link_;
  Store store_;
  Routes routes_;
  UploadGate uploads_;
  int port_ = 0;
  UniqueFd listener_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool away_ DAVIT_GUARDED_BY(mutex_) = false;
  bool stopping_ DAVIT_GUARDED_BY(mutex_) = false;
  std::list<Connection*> connections_ DAVIT_GUARDED_BY(mutex_);
  std::vector<Fault> faults_ DAVIT_GUARDED_BY(mutex_);
  std::vector<LoggedRequest> log_ DAVIT_GUARDED_BY(mutex_);
  Counters counters_ DAVIT_GUARDED_BY(mutex_);
  std::list<std::thread> threads_;  // only the acceptor adds; joined after it has ended
  std::thread acceptor_;
};

}  // namespace

std::unique_ptr<FakeRegistry> FakeRegistry::Start(const Options& options) {
  auto registry = std::make_unique<Impl>(options);
  registry->Start();
  return registry;
}

}  // namespace davit::testing
