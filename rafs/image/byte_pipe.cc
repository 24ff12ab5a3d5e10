#include "rafs/image/byte_pipe.h"

#include <algorithm>
#include <cstring>

namespace davit::rafs {

void BytePipe::Write(Bytes data) {
  while (!data.empty()) {
    const MutexLock lock(mutex_);
    while (!unwanted_ && buffer_.size() - read_ >= limit_) changed_.Wait(mutex_);
    if (unwanted_) return;
    const std::size_t n = std::min(data.size(), limit_ - (buffer_.size() - read_));
    buffer_.append(AsText(data.first(n)));
    data = data.subspan(n);
    changed_.NotifyAll();
  }
}

void BytePipe::EndWriting(Status status) {
  const MutexLock lock(mutex_);
  written_ = true;
  status_ = std::move(status);
  changed_.NotifyAll();
}

Result<std::size_t> BytePipe::Read(MutableBytes out) {
  const MutexLock lock(mutex_);
  while (buffer_.size() == read_ && !written_) changed_.Wait(mutex_);
  if (written_ && !status_) return status_.error();
  const std::size_t n = std::min(out.size(), buffer_.size() - read_);
  std::memcpy(out.data(), buffer_.data() + read_, n);
  read_ += n;
  if (read_ == buffer_.size()) {
    buffer_.clear();
    read_ = 0;
  }
  changed_.NotifyAll();
  return n;
}

void BytePipe::EndReading() {
  const MutexLock lock(mutex_);
  unwanted_ = true;
  changed_.NotifyAll();
}

}  // namespace davit::rafs
