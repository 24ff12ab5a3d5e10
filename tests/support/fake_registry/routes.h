#pragma once
// The distribution protocol, answered properly; faults are applied to the answer afterwards.

#include <set>

#include "tests/support/fake_registry/fake_registry.h"
#include "tests/support/fake_registry/store.h"

namespace davit::testing {

class Routes {
 public:
  Routes(FakeRegistry::Options options, Store& store)
      : options_(std::move(options)), store_(store) {}
  void set_origin(std::string origin) { origin_ = std::move(origin); }
  WireResponse Handle(const WireRequest& request);
  void ExpireTokens();

 private:
  WireResponse Unauthorized(const std::string& repository, bool push);
  bool Authorized(const WireRequest& request);
  WireResponse Token(const WireRequest& request);
  WireResponse Manifest(const WireRequest& request, const std::string& repository,
                        const std::string& reference);
  WireResponse Blob(const WireRequest& request, const std::string& repository,
                    const std::string& digest);
  WireResponse Upload(const WireRequest& request, const std::string& repository,
                      const std::string& id);
  WireResponse Tags(const WireRequest& request, const std::string& repository);
  WireResponse Referrers(const WireRequest& request, const std::string& repository,
                         const std::string& digest);
  WireResponse FinishUpload(const std::string& repository, const std::string& digest,
                            std::string content);
  std::string Location(const std::string& path) const {
    return options_.relative_locations ? path : origin_ + path;
  }

  const FakeRegistry::Options options_;
  Store& store_;
  std::string origin_;
  Mutex mutex_;
  std::map<std::string, std::string> uploads_ DAVIT_GUARDED_BY(mutex_);
  std::map<std::string, TimePoint> tokens_ DAVIT_GUARDED_BY(mutex_);
  int next_id_ DAVIT_GUARDED_BY(mutex_) = 0;
};

}  // namespace davit::testing
