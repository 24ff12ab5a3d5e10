#pragma once
// Counts the uploads that are in hand at the same time, and can hold them until so many are.

#include "common/base/sync.h"

namespace davit::testing {

/// Thread-safe.
class UploadGate {
 public:
  /// `hold` > 0: uploads wait until `hold` of them have been here at once (10 s at most), and the
  /// first ones a little longer, to see whether even more come.
  explicit UploadGate(int hold) : hold_(hold) {}

  void Enter();
  void Leave();
  int most() const;

 private:
  const int hold_;
  mutable Mutex mutex_;
  CondVar changed_;
  int now_ DAVIT_GUARDED_BY(mutex_) = 0;
  int most_ DAVIT_GUARDED_BY(mutex_) = 0;
  bool open_ DAVIT_GUARDED_BY(mutex_) = false;
};

}  // namespace davit::testing
