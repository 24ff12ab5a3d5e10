#include "common/codec/codec.h"

#include <gtest/gtest.h>

#include <random>

#include "common/codec/stream.h"

namespace davit::codec {
namespace {

std::string Sample(std::size_t size) {
  std::mt19937 random(7);
  std::string out;
  while (out.size() < size) out += "line " + std::to_string(random() % 1000) + "\n";
  out.resize(size);
  return out;
}

class CodecTest : public ::testing::TestWithParam<Algorithm> {};

TEST_P(CodecTest, RoundTripsAndIsReproducible) {
  auto compressor = MakeCompressor(GetParam());
  ASSERT_TRUE(compressor.ok());
  for (std::size_t size : {1U, 4095U, 65536U, 1U << 20}) {
    const std::string in = Sample(size);
    std::string out((*compressor)->Bound(size), '\0');
    const auto n = (*compressor)->Compress(AsBytes(in), std::as_writable_bytes(std::span(out)));
    ASSERT_TRUE(n.ok());
    std::string again(out.size(), '\0');
    ASSERT_EQ(*(*MakeCompressor(GetParam()))
                   ->Compress(AsBytes(in), std::as_writable_bytes(std::span(again))),
              *n);
    EXPECT_EQ(out.substr(0, *n), again.substr(0, *n));
    std::string back(size, '\0');
    ASSERT_TRUE(
        Decompress(GetParam(), AsBytes(out).first(*n), std::as_writable_bytes(std::span(back)))
            .ok());
    EXPECT_EQ(back, in);
  }
}

TEST_P(CodecTest, RefusesDamagedAndWrongLengths) {
  auto compressor = MakeCompressor(GetParam());
  ASSERT_TRUE(compressor.ok());
  const std::string in = Sample(10000);
  std::string out((*compressor)->Bound(in.size()), '\0');
  out.resize(*(*compressor)->Compress(AsBytes(in), std::as_writable_bytes(std::span(out))));
  for (std::size_t wanted : {9999U, 10001U}) {
    std::string back(wanted, '\0');
    EXPECT_EQ(Decompress(GetParam(), AsBytes(out), std::as_writable_bytes(std::span(back)))
                  .error()
                  .code(),
              Code::kDataLoss);
  }
  std::string back(in.size(), '\0');
  EXPECT_FALSE(Decompress(GetParam(), AsBytes(out).first(out.size() / 2),
                          std::as_writable_bytes(std::span(back)))
                   .ok());
  EXPECT_FALSE(Decompress(GetParam(), {}, std::as_writable_bytes(std::span(back))).ok());
}

INSTANTIATE_TEST_SUITE_P(All, CodecTest,
                         ::testing::Values(Algorithm::kNone, Algorithm::kLz4Block,
                                           Algorithm::kZstd));

TEST(Codec, GzipUnitsDecode) {
  const std::string in = Sample(50000);
  const auto gz = GzipCompress(AsBytes(in));
  ASSERT_TRUE(gz.ok());
  std::string back(in.size(), '\0');
  ASSERT_TRUE(
      Decompress(Algorithm::kGzip, AsBytes(*gz), std::as_writable_bytes(std::span(back))).ok());
  EXPECT_EQ(back, in);
  std::string damaged = *gz;
  damaged[damaged.size() / 2] ^= 1;
  EXPECT_FALSE(
      Decompress(Algorithm::kGzip, AsBytes(damaged), std::as_writable_bytes(std::span(back))).ok());
  EXPECT_EQ(MakeCompressor(Algorithm::kGzip).error().code(), Code::kUnsupported);
  EXPECT_FALSE(MakeCompressor(Algorithm::kZstd, 23).ok());
  EXPECT_FALSE(ParseAlgorithm("brotli").ok());
}

/// Gives its text in pieces of `step` bytes.
class TextStream final : public ByteStream {
 public:
  TextStream(std::string text, std::size_t step) : text_(std::move(text)), step_(step) {}
  Result<std::size_t> Read(MutableBytes out) override {
    const std::size_t n = std::min({out.size(), step_, text_.size() - position_});
    if (n > 0) std::memcpy(out.data(), text_.data() + position_, n);
    position_ += n;
    return n;
  }

 private:
  std::string text_;
  std::size_t step_, position_ = 0;
};

Result<std::string> ReadAll(Result<std::unique_ptr<ByteStream>> stream) {
  if (!stream.ok()) return stream.error();
  std::string out;
  std::vector<std::byte> buffer(1000);
  while (true) {
    DAVIT_TRY_ASSIGN(const std::size_t n, (*stream)->Read(buffer));
    if (n == 0) return out;
    out += AsText(Bytes(buffer).first(n));
  }
}

TEST(Stream, DecodesMultiMemberGzipInAnyPieces) {
  const std::string a = Sample(100000);
  const std::string b = Sample(3);
  const std::string gz =
      *GzipCompress(AsBytes(a)) + *GzipCompress(AsBytes(b)) + std::string(512, '\0');
  for (std::size_t step : {1U, 7U, 4096U, 1U << 20}) {
    const auto out = ReadAll(MakeDetectingDecoder(std::make_unique<TextStream>(gz, step)));
    ASSERT_TRUE(out.ok()) << out.error().ToString();
    EXPECT_EQ(*out, a + b);
  }
  EXPECT_EQ(ReadAll(MakeDetectingDecoder(std::make_unique<TextStream>(gz.substr(0, 500), 64)))
                .error()
                .code(),
            Code::kDataLoss);
  EXPECT_FALSE(ReadAll(MakeDetectingDecoder(std::make_unique<TextStream>(gz + "x", 64))).ok());
}

TEST(Stream, DecodesZstdAndPlain) {
  const std::string in = Sample(300000);
  auto compressor = MakeCompressor(Algorithm::kZstd);
  std::string frame((*compressor)->Bound(in.size()), '\0');
  frame.resize(*(*compressor)->Compress(AsBytes(in), std::as_writable_bytes(std::span(frame))));
  for (std::size_t step : {1U, 4096U}) {
    const auto out =
        ReadAll(MakeDetectingDecoder(std::make_unique<TextStream>(frame + frame, step)));
    ASSERT_TRUE(out.ok()) << out.error().ToString();
    EXPECT_EQ(*out, in + in);
  }
  EXPECT_FALSE(ReadAll(MakeDetectingDecoder(
                           std::make_unique<TextStream>(frame.substr(0, frame.size() - 1), 512)))
                   .ok());
  EXPECT_EQ(*ReadAll(MakeDetectingDecoder(std::make_unique<TextStream>("plain", 2))), "plain");
  EXPECT_EQ(*ReadAll(MakeDetectingDecoder(std::make_unique<TextStream>("", 2))), "");
}

TEST(Stream, GunzipKeepsItsLimitAndCompressIsReproducible) {
  const std::string in(1U << 20, 'x');
  const std::string gz = *GzipCompress(AsBytes(in));
  EXPECT_EQ(gz, *GzipCompress(AsBytes(in)));
  EXPECT_EQ(*Gunzip(AsBytes(gz), in.size()), in);
  EXPECT_EQ(Gunzip(AsBytes(gz), in.size() - 1).error().code(), Code::kResourceExhausted);
  EXPECT_EQ(*Gunzip(AsBytes(*GzipCompress({})), 10), "");
}

}  // namespace
}  // namespace davit::codec
