// TLS with a private CA and client certificates, against Python's ssl (another implementation of
// the server side than anything davit links).

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "common/base/fd.h"
#include "common/http/client.h"

namespace davit::http {
namespace {

constexpr const char* kCertificates = R"(set -e
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $key -keyout ca.key -out ca.pem -subj /CN=test-ca -days 2
issue() {
  openssl req $key -keyout $1.key -out $1.csr -subj /CN=$1
  printf 'subjectAltName=%s' $2 > $1.ext
  openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $1.pem -days 2 \
    -extfile $1.ext
}
issue server IP:127.0.0.1
issue elsewhere DNS:elsewhere.example
issue client DNS:client.example
)";

constexpr const char* kServer = R"(import http.server, os, ssl, sys, threading
name, need_client = sys.argv[1], sys.argv[2] == "1"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        peer = self.connection.getpeercert() or {}
        text = str(dict(x[0] for x in peer.get("subject", ())).get("commonName", "-")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.handle_error = lambda *args: None
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(name + ".pem", name + ".key")
if need_client:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations("ca.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
with open("port.tmp", "w") as f: f.write(str(server.server_port))
os.rename("port.tmp", "port")
sys.stdin.read()
)";

/// A Python server that ends when its standard input does.
class TlsServer {
 public:
  TlsServer(const std::string& dir, const std::string& name, bool need_client) {
    std::remove((dir + "/port").c_str());
    pipe_ = ::popen(
        ("cd " + dir + " && exec python3 server.py " + name + (need_client ? " 1" : " 0")).c_str(),
        "we");
    for (int i = 0; i < 1000; ++i) {
      const auto port = ReadFile(dir + "/port");
      if (port.ok()) {
        url_ = "https://127.0.0.1:" + *port + "/";
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  ~TlsServer() {
    if (pipe_ != nullptr) ::pclose(pipe_);
  }
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;
  const std::string& url() const { return url_; }

 private:
  std::FILE* pipe_ = nullptr;
  std::string url_;
};

class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(dir_.ok());
    ASSERT_TRUE(WriteFileAtomic(dir_->path() + "/make", AsBytes(kCertificates)).ok());
    ASSERT_TRUE(WriteFileAtomic(dir_->path() + "/server.py", AsBytes(kServer)).ok());
    ASSERT_EQ(std::system(("cd " + dir_->path() + " && sh make >log 2>&1").c_str()), 0);
  }
  std::string File(const std::string& name) const { return dir_->path() + "/" + name; }
  Result<Response> Get(const std::string& url, TlsOptions tls) {
    Request request;
    request.url = url;
    request.tls = std::move(tls);
    return client_->Do({}, request);
  }
  Result<TempDir> dir_ = TempDir::Create("davit-tls");
  std::unique_ptr<Client> client_ = Client::Create({});
};

TEST_F(TlsTest, TrustsAPrivateCaOnlyWhereItIsNamed) {
  const TlsServer server(dir_->path(), "server", false);
  ASSERT_FALSE(server.url().empty());
  EXPECT_EQ(Get(server.url(), {.ca_files = {File("ca.pem")}})->status, 200);
  // On the same client: the trusted connection is not lent to a request that does not trust it.
  EXPECT_EQ(Get(server.url(), {}).error().code(), Code::kUnauthenticated);
  EXPECT_EQ(Get(server.url(), {.skip_verify = true})->status, 200);
  EXPECT_EQ(Get(server.url(), {}).error().code(), Code::kUnauthenticated);
  EXPECT_FALSE(Get(server.url(), {.ca_files = {File("missing.pem")}}).ok());
}

TEST_F(TlsTest, ChecksTheNameInTheCertificate) {
  const TlsServer server(dir_->path(), "elsewhere", false);
  ASSERT_FALSE(server.url().empty());
  EXPECT_EQ(Get(server.url(), {.ca_files = {File("ca.pem")}}).error().code(),
            Code::kUnauthenticated);
}

TEST_F(TlsTest, ShowsAClientCertificate) {
  const TlsServer server(dir_->path(), "server", true);
  ASSERT_FALSE(server.url().empty());
  EXPECT_FALSE(Get(server.url(), {.ca_files = {File("ca.pem")}}).ok());
  const auto reply = Get(server.url(), {.ca_files = {File("ca.pem")},
                                        .client_cert_file = File("client.pem"),
                                        .client_key_file = File("client.key")});
  ASSERT_TRUE(reply.ok()) << reply.error().ToString();
  EXPECT_EQ(reply->body, "client");
  EXPECT_FALSE(Get(server.url(), {.ca_files = {File("ca.pem")}}).ok());
}

}  // namespace
}  // namespace davit::http
