#pragma once
// Pushes what a conversion makes: blobs in parallel, then bootstrap, config and manifest.

#include <memory>
#include <string>
#include <vector>

#include "common/base/sync.h"
#include "common/base/thread_pool.h"
#include "rafs/convert/source_image.h"

namespace davit::rafs {

/// Sends files and texts to the target repository. Thread-safe. The first failure is kept and
/// returned by Wait(); nothing is sent after it.
class ImageWriter {
 public:
  ImageWriter(const Context& ctx, registry::Repository& target, int parallel,
              const ConvertListener& listener);

  /// Queues a file; it is removed when it has been sent.
  void PushFile(const std::string& path, const oci::Descriptor& descriptor);
  /// Sends a small blob at once.
  Result<oci::Descriptor> PushText(std::string_view media_type, const std::string& text);
  /// Blocks until everything queued is there.
  Status Wait();
  std::uint64_t pushed_bytes() const;
  void Notify(const ConvertEvent& event) DAVIT_EXCLUDES(mutex_);

 private:
  void Send(const std::string& path, const oci::Descriptor& descriptor);

  const Context ctx_;
  registry::Repository& target_;
  const ConvertListener& listener_;
  mutable Mutex mutex_;
  Status first_error_ DAVIT_GUARDED_BY(mutex_);
  std::uint64_t pushed_bytes_ DAVIT_GUARDED_BY(mutex_) = 0;
  Mutex listener_mutex_;
  ThreadPool pool_;
};

/// A JSON list of strings, as annotations hold them.
std::string JsonList(const std::vector<std::string>& values);

/// The config of the RAFS image: the source's, with the layers replaced.
Result<std::string> RewriteConfig(const std::string& source_config,
                                  const std::vector<std::string>& diff_ids);

}  // namespace davit::rafs
