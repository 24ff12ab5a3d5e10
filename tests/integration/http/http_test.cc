#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <thread>

#include "common/base/fd.h"
#include "common/http/client.h"
#include "common/http/server.h"
#include "tests/support/fake_registry/fake_registry.h"

namespace davit::http {
namespace {

using std::chrono::milliseconds;
using testing::FakeRegistry;
using testing::Fault;

class ClientTest : public ::testing::Test {
 protected:
  Result<Response> Get(const std::string& path, Context ctx = {}) {
    Request request;
    request.url = "http://" + registry_->host() + path;
    request.stall_timeout = milliseconds(300);
    return client_->Do(ctx, request);
  }
  void AddFault(Fault::Kind kind, std::uint64_t offset = 0) {
    Fault fault;
    fault.kind = kind;
    fault.path = "/blobs/";
    fault.offset = offset;
    registry_->SetFault(fault);
  }
  std::unique_ptr<FakeRegistry> registry_ = FakeRegistry::Start({});
  std::unique_ptr<Client> client_ = Client::Create({});
  std::string blob_ = "/v2/r/blobs/" + registry_->AddBlob("r", std::string(1U << 20, 'x'));
};

TEST_F(ClientTest, ReusesOneConnection) {
  for (int i = 0; i < 5; ++i) ASSERT_EQ(Get(blob_)->body.size(), 1U << 20);
  EXPECT_EQ(registry_->counters().connections, 1U);
  EXPECT_EQ(registry_->counters().requests, 5U);
}

TEST_F(ClientTest, AnyStatusIsAReply) {
  EXPECT_EQ(Get("/nowhere")->status, 404);
  EXPECT_EQ(Get("/v2/")->status, 200);
}

TEST_F(ClientTest, BodiesThatEndEarlyAreErrors) {
  for (Fault::Kind kind : {Fault::Kind::kShortBody, Fault::Kind::kReset}) {
    AddFault(kind, 1000);
    EXPECT_EQ(Get(blob_).error().code(), Code::kUnavailable);
  }
  EXPECT_TRUE(Get(blob_).ok());
}

TEST_F(ClientTest, SilenceEndsAfterTheStallTimeout) {
  AddFault(Fault::Kind::kHang);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(Get(blob_).error().code(), Code::kDeadlineExceeded);
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(2000));
  registry_->ClearFaults();
}

TEST_F(ClientTest, CancellingEndsAtOnceAndDeadlinesHold) {
  AddFault(Fault::Kind::kHang);
  std::stop_source stop;
  TimePoint stopped;
  std::thread stopper([&] {
    std::this_thread::sleep_for(milliseconds(50));
    stopped = std::chrono::steady_clock::now();
    stop.request_stop();
  });
  Context ctx;
  ctx.stop = stop.get_token();
  Request request;
  request.url = "http://" + registry_->host() + blob_;
  EXPECT_EQ(client_->Do(ctx, request).error().code(), Code::kCancelled);
  const auto took = std::chrono::steady_clock::now();
  stopper.join();
  EXPECT_LT(took - stopped, milliseconds(50));
  AddFault(Fault::Kind::kHang);
  EXPECT_EQ(client_->Do(Context{}.WithTimeout(milliseconds(30)), request).error().code(),
            Code::kDeadlineExceeded);
  registry_->ClearFaults();
}

TEST_F(ClientTest, RefusedConnectionsAreUnavailable) {
  registry_->SetAway(true);
  EXPECT_EQ(Get(blob_).error().code(), Code::kUnavailable);
  registry_->SetAway(false);
  EXPECT_TRUE(Get(blob_).ok());
}

TEST_F(ClientTest, LargeRepliesAreRefusedAndSinksCanStop) {
  Request request;
  request.url = "http://" + registry_->host() + blob_;
  request.max_response_bytes = 1000;
  EXPECT_EQ(client_->Do({}, request).error().code(), Code::kResourceExhausted);
  int status = 0;
  const auto result = client_->Stream(
      {}, request,
      [&](int s, const Headers&) -> Status {
        status = s;
        return Error(Code::kDataLoss, "not wanted");
      },
      [](Bytes) -> Status {
        ADD_FAILURE() << "no body may come";
        return {};
      });
  EXPECT_EQ(result.error().message(), "not wanted");
  EXPECT_EQ(status, 200);
}

TEST_F(ClientTest, DoesNotFollowRedirects) {
  Fault fault;
  fault.kind = Fault::Kind::kRedirect;
  fault.path = "/blobs/";
  fault.location = "http://127.0.0.1:1/x";
  registry_->SetFault(fault);
  const auto reply = Get(blob_);
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->status, 307);
  EXPECT_EQ(reply->headers.Get("location"), "http://127.0.0.1:1/x");
}

TEST_F(ClientTest, UploadsInPieces) {
  Request request;
  request.method = "POST";
  request.url = "http://" + registry_->host() + "/v2/r/blobs/uploads/";
  const auto begun = client_->Do({}, request);
  ASSERT_EQ(begun->status, 202);
  const std::string content(300'000, 'u');
  request.method = "PATCH";
  request.url = *begun->headers.Get("Location");
  request.upload = UploadBody{
      content.size(), [&](std::uint64_t at, MutableBytes out) -> Result<std::size_t> {
        const std::size_t n =
            std::min({out.size(), std::size_t{7000}, std::size_t{content.size() - at}});
        std::copy_n(AsBytes(content).begin() + static_cast<std::ptrdiff_t>(at), n, out.begin());
        return n;
      }};
  const auto patched = client_->Do({}, request);
  ASSERT_TRUE(patched.ok()) << patched.error().ToString();
  EXPECT_EQ(patched->status, 202);
  EXPECT_EQ(patched->headers.Get("Range"), "0-299999");
}

TEST(ServerTest, UnixSocketIsPrivateAndHandlersMayThrow) {
  auto dir = TempDir::Create("davit-http");
  ASSERT_TRUE(dir.ok());
  const std::string socket = dir->path() + "/s";
  for (int round = 0; round < 2; ++round) {  // the second start replaces what the first left
    auto server =
        Server::Start({.unix_socket = socket}, [](const ServerRequest& request) -> Response {
          if (request.path == "/throw") throw std::runtime_error("boom");
          if (request.path == "/throw-int") throw 7;
          return {201,
                  {{"Content-Type", "text/plain"}},
                  request.method + " " + request.path + " " + request.Query("q").value_or("-") +
                      " " + request.body};
        });
    ASSERT_TRUE(server.ok()) << server.error().ToString();
    struct stat st{};
    ASSERT_EQ(::stat(socket.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0600U);
    auto client = Client::Create({});
    Request request;
    request.method = "PUT";
    request.unix_socket = socket;
    request.url = "http://localhost/a%20b?q=1";
    request.body = "body";
    const auto reply = client->Do({}, request);
    ASSERT_TRUE(reply.ok()) << reply.error().ToString();
    EXPECT_EQ(reply->status, 201);
    EXPECT_EQ(reply->body, "PUT /a b 1 body");
    request.url = "http://localhost/throw";
    EXPECT_EQ(client->Do({}, request)->status, 500);
    request.url = "http://localhost/throw-int";
    EXPECT_EQ(client->Do({}, request)->status, 500);
  }
  ASSERT_TRUE(WriteFileAtomic(socket + "x", AsBytes("data")).ok());
  EXPECT_EQ(
      Server::Start({.unix_socket = socket + "x"}, [](const ServerRequest&) { return Response{}; })
          .error()
          .code(),
      Code::kFailedPrecondition);
  EXPECT_EQ(Server::Start({.unix_socket = dir->path() + "/" + std::string(120, 'l')},
                          [](const ServerRequest&) { return Response{}; })
                .error()
                .code(),
            Code::kInvalidArgument);
}

TEST_F(ClientTest, HeadersToSendCannotSmuggle) {
  Request request;
  request.url = "http://" + registry_->host() + "/v2/";
  request.headers.Add("Authorization", "Bearer x\r\nX-Other: y");
  EXPECT_EQ(client_->Do({}, request).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(registry_->counters().requests, 0U);
}

TEST_F(ClientTest, AnUploadThatEndsEarlyFailsAtOnce) {
  Request request;
  request.method = "PUT";
  request.url = "http://" + registry_->host() + "/v2/r/manifests/t";
  bool given = false;
  request.upload = UploadBody{1000, [&](std::uint64_t, MutableBytes out) -> Result<std::size_t> {
                                if (std::exchange(given, true)) return std::size_t{0};
                                out[0] = std::byte{'x'};
                                return std::size_t{1};
                              }};
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(client_->Do({}, request).error().code(), Code::kFailedPrecondition);
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(2000));
}

TEST_F(ClientTest, ASlowSinkIsNotAStall) {
  Request request;
  request.url = "http://" + registry_->host() + blob_;
  request.stall_timeout = milliseconds(100);
  std::size_t seen = 0;
  const auto reply = client_->Stream(
      {}, request, [](int, const Headers&) -> Status { return {}; },
      [&](Bytes data) -> Status {
        if (seen == 0) std::this_thread::sleep_for(milliseconds(250));
        seen += data.size();
        return {};
      });
  ASSERT_TRUE(reply.ok()) << reply.error().ToString();
  EXPECT_EQ(seen, 1U << 20);
}

TEST(RawServer, FloodsOfHeadersAreRefused) {
  auto server = Server::Start({.address = "127.0.0.1:0"}, [](const ServerRequest&) {
    Response out{200, {}, "ok"};
    for (int i = 0; i < 2000; ++i) out.headers.Add("X-" + std::to_string(i), "v");
    return out;
  });
  ASSERT_TRUE(server.ok());
  Request request;
  request.url = "http://127.0.0.1:" + std::to_string((*server)->port()) + "/";
  EXPECT_EQ(Client::Create({})->Do({}, request).error().code(), Code::kResourceExhausted);
}

TEST(ServerTest, IdleConnectionsDoNotHoldUpTheEnd) {
  auto server = Server::Start({.address = "127.0.0.1:0"},
                              [](const ServerRequest&) { return Response{200, {}, "ok"}; });
  ASSERT_TRUE(server.ok());
  const UniqueFd idle(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>((*server)->port()));
  ASSERT_EQ(::connect(idle.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  Request request;
  request.url = "http://127.0.0.1:" + std::to_string((*server)->port()) + "/";
  auto client = Client::Create({});
  EXPECT_EQ(client->Do({}, request)->status, 200);  // beside the idle connection
  const auto start = std::chrono::steady_clock::now();
  server->reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(3000));
}

TEST(ServerTest, TcpPortAndBodyLimit) {
  auto server = Server::Start({.address = "127.0.0.1:0", .max_body_bytes = 100},
                              [](const ServerRequest&) { return Response{200, {}, "ok"}; });
  ASSERT_TRUE(server.ok());
  auto client = Client::Create({});
  Request request;
  request.method = "POST";
  request.url = "http://127.0.0.1:" + std::to_string((*server)->port()) + "/";
  request.body = std::string(1000, 'x');
  EXPECT_EQ(client->Do({}, request)->status, 413);
}

// All that comes back for a request which is sent as it is.
std::string SendRaw(int port, const std::string& text) {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  for (std::size_t sent = 0; sent < text.size();) {
    const ssize_t n = ::send(fd.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) break;  // it has heard enough
    sent += static_cast<std::size_t>(n);
  }
  std::string out;
  char buffer[4096];
  while (true) {
    const ssize_t n = ::recv(fd.get(), buffer, sizeof buffer, 0);
    if (n <= 0) return out;
    out.append(buffer, static_cast<std::size_t>(n));
  }
}

TEST(ServerTest, WhatTheServerRefusesByItselfHasABodyToo) {
  auto server = Server::Start({.address = "127.0.0.1:0", .max_body_bytes = 100},
                              [](const ServerRequest& request) {
                                return Response{request.path == "/empty" ? 404 : 200, {}, ""};
                              });
  ASSERT_TRUE(server.ok());
  const struct {
    std::string request;
    int status;
    std::string code;
  } cases[] = {
      {"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", 413, "invalid_argument"},
      {"GET /" + std::string(20'000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n", 414,
       "invalid_argument"},
      {"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "invalid_argument"},
      {"nonsense\r\n\r\n", 400, "invalid_argument"},
      {"GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=9-1\r\n\r\n", 416, "invalid_argument"},
  };
  for (const auto& one : cases) {
    const std::string reply = SendRaw((*server)->port(), one.request);
    EXPECT_NE(reply.find("HTTP/1.1 " + std::to_string(one.status)), std::string::npos)
        << one.request.substr(0, 40) << "\n"
        << reply;
    const std::size_t body = reply.find("\r\n\r\n");
    ASSERT_NE(body, std::string::npos) << one.request.substr(0, 40);
    EXPECT_TRUE(reply.substr(body + 4).starts_with("{\"code\":\"" + one.code + "\",\"message\":\""))
        << one.request.substr(0, 40) << "\n"
        << reply;
    EXPECT_NE(reply.find("\r\nX-Request-Id: "), std::string::npos) << reply;
  }
}

TEST(ServerTest, ASocketIsTakenOverFromTheDeadOnly) {
  auto dir = TempDir::Create("davit-http");
  const std::string socket = dir->path() + "/s";
  const auto ok = [](const ServerRequest&) { return Response{200, {}, "ok"}; };
  auto first = Server::Start({.unix_socket = socket}, ok);
  ASSERT_TRUE(first.ok());
  const auto second = Server::Start({.unix_socket = socket}, ok);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code(), Code::kFailedPrecondition);
  Request request;
  request.url = "http://davitd/";
  request.unix_socket = socket;
  auto client = Client::Create({});
  const auto reply = client->Do({}, request);  // the first one still serves
  ASSERT_TRUE(reply.ok()) << reply.error().ToString();
  EXPECT_EQ(reply->status, 200);
  // A process that was killed leaves its socket.
  const std::string kept = dir->path() + "/kept";
  ASSERT_EQ(::link(socket.c_str(), kept.c_str()), 0);
  first->reset();
  ASSERT_EQ(::rename(kept.c_str(), socket.c_str()), 0);
  const auto third = Server::Start({.unix_socket = socket}, ok);
  ASSERT_TRUE(third.ok()) << third.error().ToString();
  EXPECT_EQ(client->Do({}, request)->status, 200);
}

}  // namespace
}  // namespace davit::http
