// A bootstrap layer as a registry sends it (once its digest was found right, which an attacker
// chooses as well).

#include "rafs/image/bootstrap_layer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace {

class MemoryStream final : public davit::codec::ByteStream {
 public:
  explicit MemoryStream(davit::Bytes bytes) : rest_(bytes) {}
  davit::Result<std::size_t> Read(davit::MutableBytes out) override {
    const std::size_t n = std::min(out.size(), rest_.size());
    std::copy_n(rest_.begin(), n, out.begin());
    rest_ = rest_.subspan(n);
    return n;
  }

 private:
  davit::Bytes rest_;
};

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint64_t bytes = 0;
  const auto open = [&](const davit::rafs::LayerFile&) -> davit::Result<davit::storage::ByteSink> {
    return davit::storage::ByteSink([&](davit::Bytes piece) -> davit::Status {
      bytes += piece.size();
      if (bytes > (64U << 20)) return davit::Error(davit::Code::kResourceExhausted, "enough");
      return {};
    });
  };
  static_cast<void>(davit::rafs::ReadBootstrapLayer(
      std::make_unique<MemoryStream>(std::as_bytes(std::span(data, size))), open));
  return 0;
}
