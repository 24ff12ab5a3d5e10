#include "common/base/unix_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "common/base/fd.h"

namespace davit {
namespace {

UniqueFd Bind(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

TEST(StaleSocket, ALiveOneStaysAndNamesItsProcess) {
  auto dir = *TempDir::Create("davit-socket");
  const std::string path = dir.path() + "/s";
  {
    const UniqueFd server = Bind(path);
    ASSERT_EQ(::listen(server.get(), 1), 0);
    const Status refused = RemoveStaleSocket(path);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code(), Code::kFailedPrecondition);
    EXPECT_NE(refused.error().message().find("process " + std::to_string(::getpid())),
              std::string::npos)
        << refused.error().message();
    // Also when its queue is full.
    std::vector<UniqueFd> waiting;
    for (int i = 0; i < 8; ++i) {
      waiting.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      std::memcpy(address.sun_path, path.data(), path.size());
      static_cast<void>(
          ::connect(waiting.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)));
    }
    EXPECT_FALSE(RemoveStaleSocket(path).ok());
    EXPECT_EQ(::access(path.c_str(), F_OK), 0);
  }
  EXPECT_TRUE(RemoveStaleSocket(path).ok());  // its server is gone
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
}

TEST(StaleSocket, WhatIsNoSocketIsNotRemoved) {
  auto dir = *TempDir::Create("davit-socket");
  const std::string file = dir.path() + "/precious";
  ASSERT_TRUE(WriteFileAtomic(file, AsBytes("x")).ok());
  EXPECT_FALSE(RemoveStaleSocket(file).ok());
  EXPECT_TRUE(ReadFile(file).ok());
  EXPECT_TRUE(RemoveStaleSocket(dir.path() + "/missing").ok());
}

}  // namespace
}  // namespace davit
