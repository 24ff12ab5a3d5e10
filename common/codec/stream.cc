#include "common/codec/stream.h"

#include <fmt/format.h>
#include <isa-l/igzip_lib.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace davit::codec {
namespace {

constexpr std::size_t kInputBuffer = 256U << 10;

/// Input side of the decoders: a buffer that is refilled from a stream.
class Input {
 public:
  explicit Input(std::unique_ptr<ByteStream> in) : in_(std::move(in)), buffer_(kInputBuffer) {}
  /// False at the end of the input.
  Result<bool> Fill() {
    if (begin_ < end_) return true;
    DAVIT_TRY_ASSIGN(end_, in_->Read(buffer_));
    begin_ = 0;
    return end_ > 0;
  }
  MutableBytes data() { return MutableBytes(buffer_).subspan(begin_, end_ - begin_); }
  void Consume(std::size_t n) { begin_ += n; }

 private:
  std::unique_ptr<ByteStream> in_;
  std::vector<std::byte> buffer_;
  std::size_t begin_ = 0, end_ = 0;
};

class GzipDecoder final : public ByteStream {
 public:
  explicit GzipDecoder(std::unique_ptr<ByteStream> in)
      : in_(std::move(in)), state_(std::make_unique<inflate_state>()) {
    StartMember();
  }

  Result<std::size_t> Read(MutableBytes out) override {
    const std::size_t want = std::min<std::size_t>(out.size(), 1U << 30);
    while (want > 0) {
      if (state_->block_state == ISAL_BLOCK_FINISH) {
        DAVIT_TRY_ASSIGN(const bool more, NextMember());
        if (!more) return 0;
      }
      DAVIT_TRY_ASSIGN(const bool filled, in_.Fill());
      const MutableBytes input = in_.data();
      state_->next_in = reinterpret_cast<std::uint8_t*>(input.data());
      state_->avail_in = static_cast<std::uint32_t>(input.size());
      state_->next_out = reinterpret_cast<std::uint8_t*>(out.data());
      state_->avail_out = static_cast<std::uint32_t>(want);
      const int rc = isal_inflate(state_.get());
      if (rc != ISAL_DECOMP_OK && rc != ISAL_END_INPUT) {
        return Error(Code::kDataLoss, fmt::format("gzip data is damaged ({})", rc));
      }
      in_.Consume(input.size() - state_->avail_in);
      const std::size_t produced = want - state_->avail_out;
      if (produced > 0) return produced;
      if (!filled && state_->block_state != ISAL_BLOCK_FINISH) {
        return Error(Code::kDataLoss, "gzip data is cut short");
      }
    }
    return 0;
  }

 private:
  void StartMember() {
    isal_inflate_init(state_.get());
    state_->crc_flag = ISAL_GZIP;
  }
  // Members follow each other directly; zero padding after the last one is tolerated, as gzip does.
  Result<bool> NextMember() {
    while (true) {
      DAVIT_TRY_ASSIGN(const bool filled, in_.Fill());
      if (!filled) return false;
      const MutableBytes rest = in_.data();
      const auto zeros = static_cast<std::size_t>(
          std::find_if(rest.begin(), rest.end(), [](std::byte b) { return b != std::byte{0}; }) -
          rest.begin());
      if (zeros == rest.size() || zeros > 0) {
        in_.Consume(zeros);
        padded_ = true;
        continue;
      }
      if (padded_) return Error(Code::kDataLoss, "garbage after the end of gzip data");
      StartMember();
      return true;
    }
  }

  Input in_;
  std::unique_ptr<inflate_state> state_;
  bool padded_ = false;
};

class ZstdDecoder final : public ByteStream {
 public:
  explicit ZstdDecoder(std::unique_ptr<ByteStream> in)
      : in_(std::move(in)), ctx_(ZSTD_createDCtx()) {
    // 128 MiB: what the zstd tool accepts by default.
    ZSTD_DCtx_setParameter(ctx_.get(), ZSTD_d_windowLogMax, 27);
  }

  Result<std::size_t> Read(MutableBytes out) override {
    while (!out.empty()) {
      DAVIT_TRY_ASSIGN(const bool filled, in_.Fill());
      if (!filled && frame_done_) return 0;
      const MutableBytes input = in_.data();
      ZSTD_inBuffer source{input.data(), input.size(), 0};
      ZSTD_outBuffer target{out.data(), out.size(), 0};
      const std::size_t rc = ZSTD_decompressStream(ctx_.get(), &target, &source);
      if (ZSTD_isError(rc)) {
        return Error(Code::kDataLoss,
                     fmt::format("zstd data is damaged: {}", ZSTD_getErrorName(rc)));
      }
      in_.Consume(source.pos);
      frame_done_ = rc == 0;
      if (target.pos > 0) return target.pos;
      if (!filled && !frame_done_) return Error(Code::kDataLoss, "zstd data is cut short");
    }
    return 0;
  }

 private:
  struct Deleter {
    void operator()(ZSTD_DCtx* ctx) const { ZSTD_freeDCtx(ctx); }
  };
  Input in_;
  std::unique_ptr<ZSTD_DCtx, Deleter> ctx_;
  bool frame_done_ = true;
};

/// Gives back bytes that were read ahead to look at them.
class PrefixedStream final : public ByteStream {
 public:
  PrefixedStream(std::vector<std::byte> head, std::unique_ptr<ByteStream> rest)
      : head_(std::move(head)), rest_(std::move(rest)) {}
  Result<std::size_t> Read(MutableBytes out) override {
    if (position_ == head_.size()) return rest_->Read(out);
    const std::size_t n = std::min(out.size(), head_.size() - position_);
    std::memcpy(out.data(), head_.data() + position_, n);
    position_ += n;
    return n;
  }

 private:
  std::vector<std::byte> head_;
  std::size_t position_ = 0;
  std::unique_ptr<ByteStream> rest_;
};

class SpanStream final : public ByteStream {
 public:
  explicit SpanStream(Bytes data) : data_(data) {}
  Result<std::size_t> Read(MutableBytes out) override {
    const std::size_t n = std::min(out.size(), data_.size());
    if (n > 0) std::memcpy(out.data(), data_.data(), n);
    data_ = data_.subspan(n);
    return n;
  }

 private:
  Bytes data_;
};

}  // namespace

StreamFormat DetectFormat(Bytes head) {
  auto starts_with = [head](std::string_view magic) {
    return head.size() >= magic.size() && AsText(head.first(magic.size())) == magic;
  };
  if (starts_with("\x1f\x8b")) return StreamFormat::kGzip;
  if (starts_with("\x28\xb5\x2f\xfd")) return StreamFormat::kZstd;
  // A skippable frame may come first (seekable zstd, zstd:chunked).
  if (head.size() >= 4 && (std::to_integer<int>(head[0]) & 0xf0) == 0x50 &&
      AsText(head.subspan(1, 3)) == "\x2a\x4d\x18") {
    return StreamFormat::kZstd;
  }
  return StreamFormat::kPlain;
}

Result<std::unique_ptr<ByteStream>> MakeDecoder(StreamFormat format,
                                                std::unique_ptr<ByteStream> in) {
  switch (format) {
    case StreamFormat::kPlain:
      return in;
    case StreamFormat::kGzip:
      return std::unique_ptr<ByteStream>(std::make_unique<GzipDecoder>(std::move(in)));
    case StreamFormat::kZstd:
      return std::unique_ptr<ByteStream>(std::make_unique<ZstdDecoder>(std::move(in)));
  }
  return Error(Code::kInternal, "unknown stream format");
}

Result<std::unique_ptr<ByteStream>> MakeDetectingDecoder(std::unique_ptr<ByteStream> in) {
  std::vector<std::byte> head(8);
  std::size_t have = 0;
  while (have < head.size()) {
    DAVIT_TRY_ASSIGN(const std::size_t n, in->Read(MutableBytes(head).subspan(have)));
    if (n == 0) break;
    have += n;
  }
  head.resize(have);
  const StreamFormat format = DetectFormat(head);
  return MakeDecoder(format, std::make_unique<PrefixedStream>(std::move(head), std::move(in)));
}

Result<std::string> GzipCompress(Bytes in, int level) {
  z_stream stream{};
  if (deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    return Error(Code::kInternal, "zlib cannot be set up");
  }
  gz_header header{};
  header.os = 255;
  deflateSetHeader(&stream, &header);
  std::string out;
  std::array<char, 1U << 16> buffer;
  int rc = Z_OK;
  std::size_t offset = 0;
  while (rc == Z_OK) {
    const std::size_t piece = std::min<std::size_t>(in.size() - offset, 1U << 30);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data() + offset));
    stream.avail_in = static_cast<uInt>(piece);
    const int flush = offset + piece == in.size() ? Z_FINISH : Z_NO_FLUSH;
    do {
      stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
      stream.avail_out = buffer.size();
      rc = deflate(&stream, flush);
      out.append(buffer.data(), buffer.size() - stream.avail_out);
    } while (stream.avail_out == 0 && rc == Z_OK);
    offset += piece;
  }
  deflateEnd(&stream);
  if (rc != Z_STREAM_END) return Error(Code::kInternal, fmt::format("zlib fails with {}", rc));
  return out;
}

Result<std::string> Gunzip(Bytes in, std::uint64_t limit) {
  GzipDecoder decoder(std::make_unique<SpanStream>(in));
  std::string out;
  std::vector<std::byte> buffer(64U << 10);
  while (true) {
    DAVIT_TRY_ASSIGN(const std::size_t n, decoder.Read(buffer));
    if (n == 0) return out;
    if (out.size() + n > limit) {
      return Error(Code::kResourceExhausted,
                   fmt::format("gzip data expands to more than {} bytes", limit));
    }
    out.append(AsText(Bytes(buffer).first(n)));
  }
}

}  // namespace davit::codec
