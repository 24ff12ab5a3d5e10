#pragma once
// Views of bytes and bounds-checked access to untrusted input. All on-disk and on-wire integers
// of the formats davit reads are little-endian; the build refuses other hosts.

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "common/base/result.h"

namespace davit {

static_assert(std::endian::native == std::endian::little, "davit needs a little-endian host");

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

/// A range of bytes of a file or blob: [offset, offset + length).
struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  auto operator<=>(const ByteRange&) const = default;
};

inline Bytes AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
/// The bytes as text; not validated, may hold any value.
inline std::string_view AsText(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// a + b, or nothing when it does not fit.
template <std::unsigned_integral T>
constexpr std::optional<T> CheckedAdd(T a, std::type_identity_t<T> b) {
  T out{};
  if (__builtin_add_overflow(a, b, &out)) return std::nullopt;
  return out;
}
/// a * b, or nothing when it does not fit.
template <std::unsigned_integral T>
constexpr std::optional<T> CheckedMul(T a, std::type_identity_t<T> b) {
  T out{};
  if (__builtin_mul_overflow(a, b, &out)) return std::nullopt;
  return out;
}

/// Rounds up to a multiple of `unit` (a power of two). The caller makes sure that it fits.
constexpr std::uint64_t AlignUp(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) & ~(unit - 1);
}
constexpr std::uint64_t DivUp(std::uint64_t value, std::uint64_t unit) {
  return value / unit + (value % unit != 0 ? 1 : 0);
}

/// bytes[offset, offset+length), or kDataLoss naming `what` when that is not inside.
Result<Bytes> SubBytes(Bytes bytes, std::uint64_t offset, std::uint64_t length,
                       std::string_view what);

/// Copies a packed on-disk struct out of untrusted bytes; kDataLoss naming `what` when too short.
template <class T>
  requires std::is_trivially_copyable_v<T>
Result<T> LoadAt(Bytes bytes, std::uint64_t offset, std::string_view what) {
  DAVIT_TRY_ASSIGN(Bytes part, SubBytes(bytes, offset, sizeof(T), what));
  T out;
  std::memcpy(&out, part.data(), sizeof(T));
  return out;
}

/// Lower-case hex of bytes.
std::string ToHex(Bytes bytes);
/// The bytes of lower- or upper-case hex; kInvalidArgument for anything else.
Result<std::string> FromHex(std::string_view hex);

}  // namespace davit
