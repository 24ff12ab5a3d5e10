#include "tests/support/fake_fuse/fake_fuse.h"

#include <poll.h>
#include <sys/socket.h>

#include <cstdlib>
#include <vector>

namespace davit::testing {

FakeFuse::FakeFuse() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  kernel_.reset(ends[0]);
  server_.reset(ends[1]);
  const int size = 1 << 20;
  for (const int end : ends) {
    ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
  }
}

void FakeFuse::SendRaw(std::string_view bytes) {
  if (::send(kernel_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) std::abort();
}

std::uint64_t FakeFuse::Send(std::uint32_t opcode, std::uint64_t node, std::string_view body,
                             std::uint32_t pid) {
  fuse_in_header header{};
  header.len = static_cast<std::uint32_t>(sizeof(header) + body.size());
  header.opcode = opcode;
  header.unique = unique_ += 2;
  header.nodeid = node;
  header.pid = pid;
  SendRaw(Body(header).append(body));
  return header.unique;
}

std::optional<FakeReply> FakeFuse::Receive() {
  pollfd poll{.fd = kernel_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&poll, 1, 10'000) != 1) return std::nullopt;
  std::vector<char> buffer(2U << 20);
  const ssize_t got = ::recv(kernel_.get(), buffer.data(), buffer.size(), 0);
  fuse_out_header header{};
  if (got < static_cast<ssize_t>(sizeof(header))) return std::nullopt;
  std::memcpy(&header, buffer.data(), sizeof(header));
  if (header.len != static_cast<std::uint32_t>(got)) return std::nullopt;
  return FakeReply{header.unique, -header.error,
                   std::string(buffer.data() + sizeof(header), buffer.data() + got)};
}

FakeReply FakeFuse::Call(std::uint32_t opcode, std::uint64_t node, std::string_view body) {
  const std::uint64_t unique = Send(opcode, node, body);
  auto reply = Receive();
  if (!reply || reply->unique != unique) return {0, -1, "no reply to this request"};
  return *std::move(reply);
}

fuse_init_out FakeFuse::Init(std::uint32_t flags) {
  fuse_init_in in{};
  in.major = FUSE_KERNEL_VERSION;
  in.minor = FUSE_KERNEL_MINOR_VERSION;
  in.max_readahead = 1U << 17;
  in.flags = flags;
  return Call(FUSE_INIT, 0, Body(in)).As<fuse_init_out>();
}

void FakeFuse::Interrupt(std::uint64_t unique) {
  fuse_interrupt_in in{};
  in.unique = unique;
  Send(FUSE_INTERRUPT, 0, Body(in));
}

std::string FakeFuse::ReadBody(std::uint64_t offset, std::uint32_t size) {
  fuse_read_in in{};
  in.offset = offset;
  in.size = size;
  return Body(in);
}

}  // namespace davit::testing
