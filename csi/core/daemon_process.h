#pragma once
// davitd as a child process: started, watched, started again, stopped.

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/fd.h"
#include "common/base/sync.h"
#include "daemon/client/client.h"

namespace davit::csi {

/// Owns one thread ("csi-daemon"). A daemon that an earlier davit-csi started and did not stop
/// (because it was killed) is taken over, so that its mounts stay. Thread-safe.
class DaemonProcess {
 public:
  struct Options {
    std::string program;                                   // path of davitd
    std::vector<std::string> arguments;                    // without the program's name
    std::vector<std::pair<std::string, std::string>> env;  // added to the environment
    std::string pid_file;                                  // says which daemon is ours
    std::chrono::milliseconds start_patience{60'000};      // until it answers
    std::chrono::milliseconds stop_patience{30'000};       // between SIGTERM and SIGKILL
    std::chrono::milliseconds backoff_min{500}, backoff_max{30'000};
    std::function<void()> on_started;  // it answers
  };
  /// kNotFound when the program cannot be run. `client` talks to the daemon and must outlive it.
  static Result<std::unique_ptr<DaemonProcess>> Start(Options options, daemon::Client& client);
  /// Stops the daemon and waits for it.
  ~DaemonProcess();
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;

 private:
  struct Child {
    pid_t pid = 0;
    UniqueFd pidfd;
    bool ours = false;  // our child: to be reaped
  };
  DaemonProcess(Options options, daemon::Client& client, UniqueFd wake)
      : options_(std::move(options)), client_(client), wake_(std::move(wake)) {}
  void Run();
  Result<Child> TakeOver();
  Result<Child> Spawn();
  bool WaitUntilAnswers(const Child& child);
  bool WaitForExit(const Child& child, std::chrono::milliseconds patience, bool until_stop);
  void Stop(Child& child);
  bool Pause(std::chrono::milliseconds duration);

  const Options options_;
  daemon::Client& client_;
  const UniqueFd wake_;  // eventfd: readable when the end has come
  std::stop_source stop_;
  std::thread thread_;
};

}  // namespace davit::csi
