#include "common/digest/digest.h"

#include <fmt/format.h>
#include <isa-l/crc.h>
#include <llvm-c/blake3.h>
#include <openssl/evp.h>

#include <climits>

namespace davit {
namespace {

struct EvpDeleter {
  void operator()(EVP_MD_CTX* ctx) const { EVP_MD_CTX_free(ctx); }
};

// Fetched once: EVP_sha256() would look the provider up again at each use.
const EVP_MD* Sha256() {
  static const EVP_MD* md = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  return md;
}

}  // namespace

struct Hasher::State {
  DigestAlgorithm algorithm;
  llvm_blake3_hasher blake3;
  std::unique_ptr<EVP_MD_CTX, EvpDeleter> sha256;
};

Hasher::Hasher(DigestAlgorithm algorithm) : state_(std::make_unique<State>()) {
  state_->algorithm = algorithm;
  if (algorithm == DigestAlgorithm::kBlake3) {
    llvm_blake3_hasher_init(&state_->blake3);
  } else {
    state_->sha256.reset(EVP_MD_CTX_new());
    EVP_DigestInit_ex2(state_->sha256.get(), Sha256(), nullptr);
  }
}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::Update(Bytes data) {
  if (state_->algorithm == DigestAlgorithm::kBlake3) {
    llvm_blake3_hasher_update(&state_->blake3, data.data(), data.size());
  } else {
    EVP_DigestUpdate(state_->sha256.get(), data.data(), data.size());
  }
}

Digest Hasher::Peek() const {
  Digest out;
  auto* raw = reinterpret_cast<unsigned char*>(out.bytes.data());
  if (state_->algorithm == DigestAlgorithm::kBlake3) {
    llvm_blake3_hasher_finalize(&state_->blake3, raw, out.bytes.size());
  } else {
    const std::unique_ptr<EVP_MD_CTX, EvpDeleter> copy(EVP_MD_CTX_new());
    EVP_MD_CTX_copy_ex(copy.get(), state_->sha256.get());
    EVP_DigestFinal_ex(copy.get(), raw, nullptr);
  }
  return out;
}

Digest Hasher::Finish() {
  Digest out;
  auto* raw = reinterpret_cast<unsigned char*>(out.bytes.data());
  if (state_->algorithm == DigestAlgorithm::kBlake3) {
    llvm_blake3_hasher_finalize(&state_->blake3, raw, out.bytes.size());
  } else {
    EVP_DigestFinal_ex(state_->sha256.get(), raw, nullptr);
  }
  return out;
}

Digest Digest::Of(DigestAlgorithm algorithm, Bytes data) {
  Digest out;
  auto* raw = reinterpret_cast<unsigned char*>(out.bytes.data());
  if (algorithm == DigestAlgorithm::kBlake3) {
    llvm_blake3_hasher hasher;
    llvm_blake3_hasher_init(&hasher);
    llvm_blake3_hasher_update(&hasher, data.data(), data.size());
    llvm_blake3_hasher_finalize(&hasher, raw, out.bytes.size());
  } else {
    thread_local std::unique_ptr<EVP_MD_CTX, EvpDeleter> ctx(EVP_MD_CTX_new());
    EVP_DigestInit_ex2(ctx.get(), Sha256(), nullptr);
    EVP_DigestUpdate(ctx.get(), data.data(), data.size());
    EVP_DigestFinal_ex(ctx.get(), raw, nullptr);
  }
  return out;
}

std::string_view DigestAlgorithmName(DigestAlgorithm algorithm) {
  return algorithm == DigestAlgorithm::kBlake3 ? "blake3" : "sha256";
}

Result<DigestAlgorithm> ParseDigestAlgorithm(std::string_view name) {
  if (name == "blake3") return DigestAlgorithm::kBlake3;
  if (name == "sha256") return DigestAlgorithm::kSha256;
  return Error(Code::kInvalidArgument, fmt::format("unknown digest algorithm '{}'", name))
      .WithHint("use blake3 or sha256");
}

Result<Digest> Digest::FromHex(std::string_view hex) {
  if (hex.size() != 64) {
    return Error(Code::kInvalidArgument,
                 fmt::format("a digest has 64 hex characters, not {}", hex.size()));
  }
  DAVIT_TRY_ASSIGN(const std::string raw, davit::FromHex(hex));
  Digest out;
  std::memcpy(out.bytes.data(), raw.data(), out.bytes.size());
  return out;
}

std::string Digest::Hex() const { return ToHex(bytes); }

std::uint32_t Crc32c(Bytes data, std::uint32_t crc) {
  crc = ~crc;
  while (!data.empty()) {
    const std::size_t piece = std::min<std::size_t>(data.size(), INT_MAX);
    // isa-l takes a mutable pointer but only reads.
    auto* raw = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(data.data()));
    crc = crc32_iscsi(raw, static_cast<int>(piece), crc);
    data = data.subspan(piece);
  }
  return ~crc;
}

Result<Digest> OciDigest::Parse(std::string_view text) {
  constexpr std::string_view kPrefix = "sha256:";
  const bool lower_case = text.find_first_of("ABCDEF") == std::string_view::npos;
  if (text.starts_with(kPrefix) && lower_case) {
    if (auto digest = Digest::FromHex(text.substr(kPrefix.size())); digest.ok()) return digest;
  }
  return Error(Code::kInvalidArgument, fmt::format("'{}' is not a digest", text.substr(0, 100)))
      .WithHint("digests are written sha256:<64 lower-case hex characters>");
}

std::string OciDigest::Format(const Digest& digest) { return "sha256:" + digest.Hex(); }

}  // namespace davit
