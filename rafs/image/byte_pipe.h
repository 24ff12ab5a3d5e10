#pragma once
// Bytes from one thread to another. Internal to rafs/image.

#include <string>

#include "common/base/bytes.h"
#include "common/base/sync.h"
#include "common/codec/stream.h"

namespace davit::rafs {

/// One thread writes, one reads; at most `limit` bytes wait between them.
class BytePipe {
 public:
  explicit BytePipe(std::size_t limit) : limit_(limit) {}
  BytePipe(const BytePipe&) = delete;
  BytePipe& operator=(const BytePipe&) = delete;

  /// Blocks while the pipe is full. What the reader no longer wants is thrown away.
  void Write(Bytes data);
  /// No more is written: the reader gets the rest and then the end, or `status` at once.
  void EndWriting(Status status);
  /// Blocks until there is something; 0 at the end.
  Result<std::size_t> Read(MutableBytes out);
  /// No more is read.
  void EndReading();

 private:
  const std::size_t limit_;
  Mutex mutex_;
  CondVar changed_;
  std::string buffer_ DAVIT_GUARDED_BY(mutex_);
  std::size_t read_ DAVIT_GUARDED_BY(mutex_) = 0;  // of the buffer
  bool written_ DAVIT_GUARDED_BY(mutex_) = false;
  bool unwanted_ DAVIT_GUARDED_BY(mutex_) = false;
  Status status_ DAVIT_GUARDED_BY(mutex_);
};

/// The reading end as a stream; the pipe outlives it.
class PipeStream final : public codec::ByteStream {
 public:
  explicit PipeStream(BytePipe& pipe) : pipe_(pipe) {}
  ~PipeStream() override { pipe_.EndReading(); }
  Result<std::size_t> Read(MutableBytes out) override { return pipe_.Read(out); }

 private:
  BytePipe& pipe_;
};

}  // namespace davit::rafs
