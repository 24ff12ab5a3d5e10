// URLs, Location, Content-Range and Retry-After: what other servers put into headers.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "common/base/bytes.h"
#include "common/http/message.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using davit::http::ContentRange;
  using davit::http::Url;
  const std::string_view text = davit::AsText(std::as_bytes(std::span(data, size)));
  static const Url kBase{"https", "registry.example", 443, "/v2/a/blobs/uploads/?x=1"};
  for (const auto& url : {Url::Parse(text), kBase.Resolve(text)}) {
    if (!url.ok()) continue;
    // What was accepted must be one of the two schemes and mean the same when read again.
    if (url->scheme != "http" && url->scheme != "https") std::abort();
    const auto again = Url::Parse(url->ToString());
    if (!again.ok() || again->Origin() != url->Origin()) std::abort();
  }
  const auto range = ContentRange::Parse(text);
  if (range.ok()) {
    if (range->range.length == 0 ||
        range->range.offset + range->range.length <= range->range.offset)
      std::abort();
    if (range->total && range->range.offset + range->range.length > *range->total) std::abort();
  }
  const auto wait = davit::http::ParseRetryAfter(text, std::chrono::system_clock::time_point());
  if (wait && (wait->count() < 0 || wait->count() > 3600)) std::abort();
  return 0;
}
