#pragma once
// 256-bit content digests. OpenSSL and BLAKE3 stay behind this header.

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace davit {

/// The values are those of the RAFS format (digest ids of blob tables).
enum class DigestAlgorithm : std::uint32_t { kBlake3 = 0, kSha256 = 1 };
std::string_view DigestAlgorithmName(DigestAlgorithm algorithm);  // "blake3", "sha256"
Result<DigestAlgorithm> ParseDigestAlgorithm(std::string_view name);

/// The 32 bytes of a digest; which algorithm made it is known from where it stands.
struct Digest {
  std::array<std::byte, 32> bytes{};

  static Digest Of(DigestAlgorithm algorithm, Bytes data);
  /// 64 hex characters; kInvalidArgument otherwise.
  static Result<Digest> FromHex(std::string_view hex);
  std::string Hex() const;
  auto operator<=>(const Digest&) const = default;
};

struct DigestHash {
  std::size_t operator()(const Digest& digest) const {
    std::size_t out;
    std::memcpy(&out, digest.bytes.data(), sizeof out);
    return out;
  }
};

/// Incremental digest. Not thread-safe.
class Hasher {
 public:
  explicit Hasher(DigestAlgorithm algorithm);
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  void Update(Bytes data);
  /// The digest of what came so far; more may follow.
  Digest Peek() const;
  /// Ends the computation; the object can only be destroyed afterwards.
  Digest Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// CRC-32C (Castagnoli), as RAFS stores it for uncompressed chunks.
std::uint32_t Crc32c(Bytes data, std::uint32_t crc = 0);

/// "sha256:<64 hex>" of OCI; the only algorithm davit accepts there.
struct OciDigest {
  /// kInvalidArgument, naming the text, for anything but sha256 and lower-case hex.
  static Result<Digest> Parse(std::string_view text);
  static std::string Format(const Digest& digest);
};

}  // namespace davit
