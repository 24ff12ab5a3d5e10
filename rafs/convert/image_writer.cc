#include "rafs/convert/image_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "common/base/fd.h"
#include "common/json/json.h"

namespace davit::rafs {

ImageWriter::ImageWriter(const Context& ctx, registry::Repository& target, int parallel,
                         const ConvertListener& listener)
    : ctx_(ctx),
      target_(target),
      listener_(listener),
      pool_("push", static_cast<std::size_t>(std::max(1, parallel)), 1U << 16) {}

void ImageWriter::Notify(const ConvertEvent& event) {
  if (!listener_) return;
  MutexLock lock(listener_mutex_);
  listener_(event);
}

void ImageWriter::PushFile(const std::string& path, const oci::Descriptor& descriptor) {
  // Only fails after Shutdown, which the destructor alone calls.
  static_cast<void>(pool_.Submit([this, path, descriptor] { Send(path, descriptor); }));
}

void ImageWriter::Send(const std::string& path, const oci::Descriptor& descriptor) {
  {
    MutexLock lock(mutex_);
    if (!first_error_.ok()) return;
  }
  ConvertEvent event{
      .kind = ConvertEvent::Kind::kPushStart, .total = descriptor.size, .text = descriptor.digest};
  Notify(event);
  auto send = [&]() -> Result<bool> {
    DAVIT_TRY_ASSIGN(const UniqueFd fd, OpenFile(path, O_RDONLY));
    std::uint64_t sent = 0;
    registry::BlobContent content{
        descriptor, [&](std::uint64_t offset, MutableBytes out) -> Result<std::size_t> {
          DAVIT_TRY_ASSIGN(const std::size_t n, PreadFull(fd.get(), out, offset));
          sent = std::max(sent, offset + n);
          Notify({.kind = ConvertEvent::Kind::kPushProgress,
                  .bytes = sent,
                  .total = descriptor.size,
                  .text = descriptor.digest});
          return n;
        }};
    return target_.PushBlob(ctx_, content);
  };
  const Result<bool> sent = send();
  ::unlink(path.c_str());
  {
    MutexLock lock(mutex_);
    if (!sent.ok()) {
      if (first_error_.ok()) first_error_ = sent.error();
      return;
    }
    if (*sent) pushed_bytes_ += descriptor.size;
  }
  event.kind = ConvertEvent::Kind::kPushDone;
  event.bytes = *sent ? descriptor.size : 0;
  Notify(event);
}

Result<oci::Descriptor> ImageWriter::PushText(std::string_view media_type,
                                              const std::string& text) {
  oci::Descriptor descriptor = oci::DescribeContent(media_type, text);
  registry::BlobContent content{
      descriptor, [&](std::uint64_t offset, MutableBytes out) -> Result<std::size_t> {
        if (offset >= text.size()) return std::size_t{0};
        const std::size_t n = std::min(out.size(), text.size() - offset);
        std::copy_n(AsBytes(text).begin() + static_cast<std::ptrdiff_t>(offset), n, out.begin());
        return n;
      }};
  DAVIT_TRY_ASSIGN(const bool sent, target_.PushBlob(ctx_, content));
  MutexLock lock(mutex_);
  if (sent) pushed_bytes_ += descriptor.size;
  return descriptor;
}

Status ImageWriter::Wait() {
  pool_.WaitIdle();
  MutexLock lock(mutex_);
  return first_error_;
}

std::uint64_t ImageWriter::pushed_bytes() const {
  MutexLock lock(mutex_);
  return pushed_bytes_;
}

std::string JsonList(const std::vector<std::string>& values) {
  return json::Dump(nlohmann::json(values));
}

Result<std::string> RewriteConfig(const std::string& source_config,
                                  const std::vector<std::string>& diff_ids) {
  DAVIT_TRY_ASSIGN(nlohmann::json config, json::Parse(source_config, "image config"));
  if (!config.is_object())
    return Error(Code::kInvalidArgument, "the image config is no JSON object");
  config["rootfs"] = {{"type", "layers"}, {"diff_ids", diff_ids}};
  // The source's steps are kept for people to read; none of them stands for a layer any more.
  nlohmann::json history = nlohmann::json::array();
  if (const auto it = config.find("history"); it != config.end() && it->is_array()) {
    for (const nlohmann::json& step : *it) {
      if (!step.is_object()) continue;
      history.push_back(step);
      history.back()["empty_layer"] = true;
    }
  }
  for (std::size_t i = 0; i + 1 < diff_ids.size(); ++i) {
    history.push_back({{"created_by", "davit convert"}, {"comment", "Nydus Blob Layer"}});
  }
  history.push_back({{"created_by", "davit convert"}, {"comment", "Nydus Bootstrap Layer"}});
  config["history"] = std::move(history);
  return json::Dump(config);
}

}  // namespace davit::rafs
