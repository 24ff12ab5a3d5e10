#include "common/http/client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <stop_token>
#include <utility>

#include "common/base/fd.h"
#include "common/base/sync.h"
#include "common/http/proxy.h"

namespace davit::http {
namespace {

constexpr std::size_t kMaxHeaders = 512;
constexpr std::size_t kMaxHeaderBytes = 256U << 10;
constexpr long kReceiveBuffer = 256L << 10;
constexpr const char* kSystemCaDirectory = "/etc/ssl/certs";

/// One multi handle with one easy handle. A multi of its own keeps the slot's connections and lets
/// curl_multi_wakeup end exactly this slot's wait.
struct Slot {
  Slot() : multi(curl_multi_init()), easy(curl_easy_init()) {
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 4L);
  }
  ~Slot() {
    curl_easy_cleanup(easy);
    curl_multi_cleanup(multi);
  }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  CURLM* multi;
  CURL* easy;
  std::string origin;  // of the last request: where it has a connection to
};

struct ListDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

Code CodeOf(CURLcode rc) {
  switch (rc) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return Code::kInvalidArgument;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CLIENTCERT:
    case CURLE_SSL_ISSUER_ERROR:
      return Code::kUnauthenticated;
    case CURLE_OUT_OF_MEMORY:
      return Code::kResourceExhausted;
    default:
      return Code::kUnavailable;
  }
}

std::string_view HintOf(CURLcode rc) {
  if (CodeOf(rc) == Code::kUnauthenticated)
    return "check the server's certificate; a private CA is named with a CA file";
  switch (rc) {
    case CURLE_COULDNT_RESOLVE_HOST:
      return "check the name of the host and this machine's DNS";
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
      return "check that the server runs and that this machine may reach its port";
    case CURLE_SSL_CONNECT_ERROR:
      return "the server may not speak TLS on this port; plain HTTP is used only for hosts that "
             "are named for it";
    default:
      return {};
  }
}

/// URL for messages: signed queries are secrets.
std::string Shown(const std::string& url) { return url.substr(0, url.find('?')); }

/// One exchange: the callbacks' state and the loop that drives it, all on the caller's thread.
class Transfer {
 public:
  Transfer(const Context& ctx, const Request& request, const Client::OnHeaders& on_headers,
           const Client::OnData& on_data)
      : ctx_(ctx), request_(request), on_headers_(on_headers), on_data_(on_data) {}

  Result<Response> Run(Slot& slot) {
    DAVIT_TRY(ctx_.Check(request_.method + " " + Shown(request_.url)));
    curl_easy_reset(slot.easy);
    DAVIT_TRY(SetUp(slot.easy));
    curl_multi_add_handle(slot.multi, slot.easy);
    const Status status = Drive(slot);
    // Removing an unfinished transfer closes its connection: nothing of it can leak into the next.
    curl_multi_remove_handle(slot.multi, slot.easy);
    curl_easy_reset(slot.easy);  // it must not point to this object any longer
    if (!status.ok()) return status.error();
    return std::move(response_);
  }

 private:
  Status SetUp(CURL* easy);
  Status SetHeaders(CURL* easy);
  void SetBody(CURL* easy);
  Status SetTls(CURL* easy);
  Status Drive(Slot& slot);
  Status Finished(CURLcode rc);
  /// Time until the next check of deadline and stall, in ms; an error when one of them is over.
  Result<int> TimeLeft() const;

  static std::size_t OnHeaderLine(char* data, std::size_t size, std::size_t n, void* self) {
    return static_cast<Transfer*>(self)->HeaderLine(std::string_view(data, size * n)) ? size * n
                                                                                      : 0;
  }
  static std::size_t OnBody(char* data, std::size_t size, std::size_t n, void* self) {
    return static_cast<Transfer*>(self)->Body(AsBytes(std::string_view(data, size * n))) ? size * n
                                                                                         : 0;
  }
  static std::size_t OnUpload(char* buffer, std::size_t size, std::size_t n, void* self) {
    return static_cast<Transfer*>(self)->Upload(
        std::as_writable_bytes(std::span(buffer, size * n)));
  }

  // A kept connection that the server had closed already is replaced; the body begins again.
  static int OnSeek(void* self, curl_off_t offset, int origin) {
    auto& transfer = *static_cast<Transfer*>(self);
    const auto at = static_cast<std::uint64_t>(offset);
    if (origin != SEEK_SET || offset < 0 || at > transfer.request_.upload->size) {
      return CURL_SEEKFUNC_CANTSEEK;
    }
    transfer.uploaded_ = at;
    return CURL_SEEKFUNC_OK;
  }

  bool HeaderLine(std::string_view line);
  /// Once, before the first byte of the body or at the end.
  Status Announce();
  bool Body(Bytes data);
  std::size_t Upload(MutableBytes buffer);
  void Progress() { last_progress_ = std::chrono::steady_clock::now(); }

  const Context& ctx_;
  const Request& request_;
  const Client::OnHeaders& on_headers_;
  const Client::OnData& on_data_;
  Response response_;
  CURL* easy_ = nullptr;
  bool announced_ = false;
  std::size_t header_bytes_ = 0;
  std::uint64_t uploaded_ = 0;
  Status callback_status_;
  TimePoint last_progress_ = std::chrono::steady_clock::now();
  std::unique_ptr<curl_slist, ListDeleter> header_list_;
  std::string ca_blob_;
  Proxy proxy_;
  char error_text_[CURL_ERROR_SIZE] = {};
};

bool Transfer::HeaderLine(std::string_view line) {
  Progress();
  header_bytes_ += line.size();
  if (header_bytes_ > kMaxHeaderBytes || response_.headers.items().size() >= kMaxHeaders) {
    callback_status_ =
        Error(Code::kResourceExhausted,
              fmt::format("{} {}: the reply has more than {} headers or {} bytes of them",
                          request_.method, Shown(request_.url), kMaxHeaders, kMaxHeaderBytes));
    return false;
  }
  if (announced_) return true;  // a trailer: nobody has asked for one, nobody may trust one
  while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
  if (line.starts_with("HTTP/")) {
    response_.headers = Headers();  // the answer after a 100 or a proxy's CONNECT
    return true;
  }
  if (line.empty()) return true;
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos) return true;
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  response_.headers.Add(std::string(line.substr(0, colon)), std::string(value));
  return true;
}

Status Transfer::Announce() {
  if (std::exchange(announced_, true)) return {};
  long status = 0;
  curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status);
  response_.status = static_cast<int>(status);
  return on_headers_(response_.status, response_.headers);
}

bool Transfer::Body(Bytes data) {
  callback_status_ = Announce();
  if (callback_status_.ok()) callback_status_ = on_data_(data);
  Progress();  // after the sink: the time that it blocks is not the server's
  return callback_status_.ok();
}

std::size_t Transfer::Upload(MutableBytes buffer) {
  const std::uint64_t left = request_.upload->size - uploaded_;
  if (left == 0) return 0;
  buffer = buffer.first(static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), left)));
  auto n = request_.upload->read(uploaded_, buffer);
  Progress();
  if (n.ok() && (*n == 0 || *n > buffer.size())) {
    // The server would wait for the promised bytes until the stall timeout.
    n = Error(Code::kFailedPrecondition,
              fmt::format("{} {}: the body to send ends after {} of {} bytes", request_.method,
                          Shown(request_.url), uploaded_, request_.upload->size));
  }
  if (n.ok()) {
    uploaded_ += *n;
    return *n;
  }
  callback_status_ = std::move(n).error();
  return CURL_READFUNC_ABORT;
}

Status Transfer::SetTls(CURL* easy) {
  const TlsOptions& tls = request_.tls;
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, tls.skip_verify ? 0L : 1L);
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, tls.skip_verify ? 0L : 2L);
  if (!tls.ca_files.empty()) {
    for (const std::string& file : tls.ca_files) {
      auto text = ReadFile(file, 16ULL << 20);
      if (!text.ok()) return std::move(text).error().WithContext("CA file");
      ca_blob_ += *text + "\n";
    }
    curl_blob blob{ca_blob_.data(), ca_blob_.size(), CURL_BLOB_NOCOPY};
    curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
    curl_easy_setopt(easy, CURLOPT_CAPATH, kSystemCaDirectory);
  }
  if (!tls.client_cert_file.empty()) {
    curl_easy_setopt(easy, CURLOPT_SSLCERT, tls.client_cert_file.c_str());
    curl_easy_setopt(
        easy, CURLOPT_SSLKEY,
        tls.client_key_file.empty() ? tls.client_cert_file.c_str() : tls.client_key_file.c_str());
  }
  return {};
}

void Transfer::SetBody(CURL* easy) {
  const std::string& method = request_.method;
  if (request_.upload) {
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE,
                     static_cast<curl_off_t>(request_.upload->size));
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, OnUpload);
    curl_easy_setopt(easy, CURLOPT_READDATA, this);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, OnSeek);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, this);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, kReceiveBuffer);
  } else if (method == "HEAD") {
    curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
  } else if (method != "GET" && (method != "DELETE" || !request_.body.empty())) {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request_.body.data());
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(request_.body.size()));
  }
  if (method != "HEAD" && method != "GET")
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method.c_str());
}

Status Transfer::SetUp(CURL* easy) {
  easy_ = easy;
  curl_easy_setopt(easy, CURLOPT_URL, request_.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kReceiveBuffer);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(request_.connect_timeout.count()));
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error_text_);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, OnHeaderLine);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, this);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, OnBody);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
  // A resolver that hangs must not hold up a caller that has been cancelled.
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
  if (request_.unix_socket.empty()) {
    proxy_ = ChooseProxy(request_.proxy, request_.url.substr(0, request_.url.find(':')));
  } else {
    curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, request_.unix_socket.c_str());
  }
  // Always set: libcurl has rules of its own for the environment (it ignores HTTP_PROXY).
  curl_easy_setopt(easy, CURLOPT_PROXY, proxy_.url.c_str());
  SetBody(easy);
  DAVIT_TRY(SetHeaders(easy));
  return SetTls(easy);
}

Status Transfer::SetHeaders(CURL* easy) {
  const auto add = [this](const std::string& line) {
    curl_slist* old = header_list_.release();
    curl_slist* list = curl_slist_append(old, line.c_str());
    header_list_.reset(list != nullptr ? list : old);
  };
  for (const auto& [name, value] : request_.headers.items()) {
    // Values come from other servers too (tokens): none may add a header or a request of its own.
    const auto control = [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 127; };
    if (name.empty() || std::any_of(name.begin(), name.end(), control) ||
        name.find_first_of(": ;") != std::string::npos ||
        std::any_of(value.begin(), value.end(), control)) {
      return Error(Code::kInvalidArgument,
                   fmt::format("{} {}: a header to send holds control characters", request_.method,
                               Shown(request_.url)));
    }
    // "Name;" is libcurl's way to send a header without a value.
    add(value.empty() ? name + ";" : name + ": " + value);
  }
  add("Expect:");
  if (!request_.headers.Get("Content-Type")) add("Content-Type:");
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, header_list_.get());
  return {};
}

Result<int> Transfer::TimeLeft() const {
  DAVIT_TRY(ctx_.Check(request_.method + " " + Shown(request_.url)));
  const TimePoint now = std::chrono::steady_clock::now();
  TimePoint until = last_progress_ + request_.stall_timeout;
  if (now >= until) {
    return Error(Code::kDeadlineExceeded,
                 fmt::format("{} {}: not a byte for {} ms", request_.method, Shown(request_.url),
                             request_.stall_timeout.count()));
  }
  if (ctx_.deadline) until = std::min(until, *ctx_.deadline);
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - now).count() + 1;
  return static_cast<int>(std::clamp<std::int64_t>(left, 1, 60'000));
}

Status Transfer::Drive(Slot& slot) {
  const std::stop_callback wake(ctx_.stop, [&slot] { curl_multi_wakeup(slot.multi); });
  while (true) {
    int running = 0;
    const CURLMcode rc = curl_multi_perform(slot.multi, &running);
    if (rc != CURLM_OK)
      return Error(Code::kInternal, fmt::format("libcurl: {}", curl_multi_strerror(rc)));
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(slot.multi, &left)) {
      if (message->msg == CURLMSG_DONE) return Finished(message->data.result);
    }
    DAVIT_TRY_ASSIGN(const int timeout, TimeLeft());
    if (const CURLMcode wait = curl_multi_poll(slot.multi, nullptr, 0, timeout, nullptr);
        wait != CURLM_OK)
      return Error(Code::kInternal, fmt::format("libcurl: {}", curl_multi_strerror(wait)));
  }
}

Status Transfer::Finished(CURLcode rc) {
  if (!callback_status_.ok()) return callback_status_.error();
  if (rc == CURLE_OK) return Announce();
  const char* text = error_text_[0] != '\0' ? error_text_ : curl_easy_strerror(rc);
  Error error(CodeOf(rc), fmt::format("{} {}: {}", request_.method, Shown(request_.url), text));
  long connected = 0;  // the proxy's answer to CONNECT
  curl_easy_getinfo(easy_, CURLINFO_HTTP_CONNECTCODE, &connected);
  const bool connecting = rc == CURLE_COULDNT_CONNECT || rc == CURLE_COULDNT_RESOLVE_PROXY ||
                          rc == CURLE_PROXY || rc == CURLE_OPERATION_TIMEDOUT || connected >= 300;
  // Who named a unix socket knows better what is to listen there.
  if (!request_.unix_socket.empty()) return error;
  if (proxy_.url.empty() || !connecting) return std::move(error).WithHint(HintOf(rc));
  return std::move(error).WithHint(
      fmt::format("{} names the proxy {}; hosts in NO_PROXY are reached without it", proxy_.from,
                  ShownProxy(proxy_.url)));
}

class CurlClient final : public Client {
 public:
  explicit CurlClient(const Options& options) : options_(options) {}

  Result<Response> Do(const Context& ctx, const Request& request) override {
    std::string body;
    auto on_data = [&](Bytes data) -> Status {
      if (body.size() + data.size() > request.max_response_bytes) {
        return Error(Code::kResourceExhausted,
                     fmt::format("{} {}: the reply is larger than {} bytes", request.method,
                                 Shown(request.url), request.max_response_bytes));
      }
      body += AsText(data);
      return {};
    };
    DAVIT_TRY_ASSIGN(
        Response response,
        Stream(ctx, request, [](int, const Headers&) -> Status { return {}; }, on_data));
    response.body = std::move(body);
    return response;
  }

  Result<Response> Stream(const Context& ctx, const Request& request, const OnHeaders& on_headers,
                          const OnData& on_data) override {
    DAVIT_TRY_ASSIGN(const Url url, Url::Parse(request.url));
    Request own = request;
    if (!own.headers.Get("User-Agent")) own.headers.Add("User-Agent", options_.user_agent);
    const std::string origin = own.unix_socket + url.Origin();
    std::unique_ptr<Slot> slot = Take(origin);
    auto result = Transfer(ctx, own, on_headers, on_data).Run(*slot);
    Give(std::move(slot));
    return result;
  }

 private:
  /// The most recently used slot that was last connected to this origin, else a new one.
  std::unique_ptr<Slot> Take(const std::string& origin) {
    {
      MutexLock lock(mutex_);
      const auto it = std::find_if(idle_.rbegin(), idle_.rend(),
                                   [&](const auto& slot) { return slot->origin == origin; });
      if (it != idle_.rend()) {
        std::unique_ptr<Slot> slot = std::move(*it);
        idle_.erase(std::next(it).base());
        return slot;
      }
    }
    auto slot = std::make_unique<Slot>();
    slot->origin = origin;
    return slot;
  }

  void Give(std::unique_ptr<Slot> slot) {
    std::unique_ptr<Slot> oldest;  // destroyed outside the lock: closing may take a while
    MutexLock lock(mutex_);
    idle_.push_back(std::move(slot));
    if (idle_.size() > static_cast<std::size_t>(options_.max_idle_connections)) {
      oldest = std::move(idle_.front());
      idle_.erase(idle_.begin());
    }
  }

  const Options options_;
  Mutex mutex_;
  std::vector<std::unique_ptr<Slot>> idle_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Client> Client::Create(const Options& options) {
  // Thread-safe since libcurl 7.84; counted, never undone: other users of libcurl may be there.
  curl_global_init(CURL_GLOBAL_DEFAULT);
  return std::make_unique<CurlClient>(options);
}

}  // namespace davit::http
