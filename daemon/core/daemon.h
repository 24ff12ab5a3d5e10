#pragma once
// All of davitd in one object: built from a configuration, taken down in the reverse order.

#include <functional>
#include <memory>
#include <string>

#include "common/config/config.h"
#include "daemon/core/mount_service.h"
#include "daemon/core/service.h"

namespace davit::daemon {

/// Thread-safe after Start().
class Daemon {
 public:
  struct Options {
    Config config;
    std::string version;
    /// Serve the API on config.api.socket (and metrics on api.metrics_address).
    bool serve_api = true;
  };
  /// Takes the state and cache directories, mounts again what was mounted, serves the API.
  static Result<std::unique_ptr<Daemon>> Start(const Options& options);
  /// Like Stop() with the configured way, if nobody stopped it.
  virtual ~Daemon() = default;

  virtual Service& service() = 0;
  /// Drains: no new mounts, ends the mounts, flushes the cache, stops the API. Idempotent.
  virtual void Stop(OnStop how) = 0;
};

/// "unmount", "keep", "forget" of the configuration.
OnStop ParseOnStop(std::string_view text);

/// Raises the limit of open files to the hard limit; a low one is only worth a warning.
void RaiseFileLimit();

}  // namespace davit::daemon
