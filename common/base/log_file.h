#pragma once
// The file behind the log: whole lines only, rotated by size, and whatever happens to its disk or
// directory, the program goes on.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/fd.h"
#include "common/base/result.h"

namespace davit::log {

/// Not thread-safe.
class RotatingFile {
 public:
  /// Missing directories are made. `keep` older files stay beside it: PATH.1 is the newest.
  static Result<std::unique_ptr<RotatingFile>> Open(const std::string& path,
                                                    std::uint64_t rotate_bytes, int keep);

  /// Appends one line, which includes its end, in one piece. The file is opened anew when somebody
  /// moved or removed it. After an error nothing of the line is in the file, and the next call
  /// tries again. A file that cannot be renamed is emptied: the limit of space holds.
  Status Append(std::string_view line);

 private:
  RotatingFile(std::string path, std::uint64_t rotate_bytes, int keep)
      : path_(std::move(path)), rotate_bytes_(rotate_bytes), keep_(keep) {}
  Status Reopen();
  bool IsAtItsPath() const;
  Status Rotate();

  const std::string path_;
  const std::uint64_t rotate_bytes_;
  const int keep_;
  UniqueFd fd_;
};

}  // namespace davit::log
