#pragma once
// The kernel's end of a FUSE connection, over a socket pair: sends requests in the wire format and
// reads the replies. No mount, no root.

#include <linux/fuse.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/fd.h"

namespace davit::testing {

struct FakeReply {
  std::uint64_t unique = 0;
  int error = 0;  // positive errno, 0 on success
  std::string payload;

  /// The payload's first bytes as a struct of the protocol; zeros when it is too short.
  template <class T>
  T As() const {
    T out{};
    if (payload.size() >= sizeof(T)) std::memcpy(&out, payload.data(), sizeof(T));
    return out;
  }
};

/// One thread at a time.
class FakeFuse {
 public:
  FakeFuse();
  /// The server's end; once.
  UniqueFd TakeServerEnd() { return std::move(server_); }

  /// Sends a request; its unique number. `pid` is the reader that the server sees.
  std::uint64_t Send(std::uint32_t opcode, std::uint64_t node, std::string_view body = {},
                     std::uint32_t pid = 0);
  /// The next reply, whichever request it is for; nothing after ten seconds.
  std::optional<FakeReply> Receive();
  /// Send, then Receive, which must be the reply to it.
  FakeReply Call(std::uint32_t opcode, std::uint64_t node, std::string_view body = {});
  /// INIT with everything that libfuse knows; the server's answer.
  fuse_init_out Init(std::uint32_t flags = ~0U & ~std::uint32_t{FUSE_INIT_EXT});
  /// Sends a signal's INTERRUPT for a request in flight.
  void Interrupt(std::uint64_t unique);
  /// What unmounting looks like to the server.
  void Close() { kernel_.reset(); }
  /// Bytes that are no request.
  void SendRaw(std::string_view bytes);

  static std::string Name(std::string_view name) { return std::string(name) + '\0'; }
  template <class T>
  static std::string Body(const T& value) {
    return {reinterpret_cast<const char*>(&value), sizeof(T)};
  }
  static std::string ReadBody(std::uint64_t offset, std::uint32_t size);

 private:
  UniqueFd kernel_, server_;
  std::uint64_t unique_ = 0;
};

}  // namespace davit::testing
