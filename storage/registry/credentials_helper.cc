// "docker-credential-NAME get": the server's address on stdin, JSON on stdout.

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/fd.h"
#include "storage/registry/credentials.h"
#include "storage/registry/replies.h"

extern char** environ;

namespace davit::registry {
namespace {

constexpr std::chrono::seconds kHelperTimeout{30};
constexpr std::size_t kMaxOutput = 256 << 10;

/// A child in a process group of its own; killed and reaped if it is still there at the end.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ <= 0) return;
    kill(-pid_, SIGKILL);
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
  }
  /// True with the status when it has ended.
  bool Ended(int& status) {
    if (waitpid(pid_, &status, WNOHANG) != pid_) return false;
    pid_ = 0;
    return true;
  }

 private:
  pid_t pid_;
};

struct Pipe {
  UniqueFd read, write;
  static Result<Pipe> Create() {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) return Error::FromErrno(errno, "create a pipe");
    Pipe out;
    out.read.reset(fds[0]);
    out.write.reset(fds[1]);
    return out;
  }
};

Result<pid_t> Spawn(const std::string& program, const Pipe& in, const Pipe& out) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, in.read.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out.write.get(), STDOUT_FILENO);
  // Helpers write progress and sometimes secrets to stderr; neither belongs into our log.
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  sigset_t none, pipe_signal;
  sigemptyset(&none);
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &pipe_signal);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string name = program, verb = "get";
  char* argv[] = {name.data(), verb.data(), nullptr};
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, program.c_str(), &actions, &attributes, argv, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) {
    return Error(Code::kFailedPrecondition, program + " is not in the search path (PATH)")
        .WithHint("install the credential helper or remove it from Docker's config.json");
  }
  if (error != 0) return Error::FromErrno(error, "run " + program);
  return pid;
}

/// Waits until `fd` can be read; wakes up often enough to notice a cancelled context.
Status WaitReadable(const Context& ctx, int fd, const std::string& program) {
  while (true) {
    DAVIT_TRY(ctx.Check(program));
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = poll(&entry, 1, 50);
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return Error::FromErrno(errno, "wait for " + program);
  }
}

Result<std::string> ReadOutput(const Context& ctx, int fd, const std::string& program) {
  std::string out;
  char buffer[4096];
  while (true) {
    DAVIT_TRY(WaitReadable(ctx, fd, program));
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n == 0) return out;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error::FromErrno(errno, "read from " + program);
    out.append(buffer, static_cast<std::size_t>(n));
    if (out.size() > kMaxOutput)
      return Error(Code::kResourceExhausted,
                   fmt::format("{} wrote more than {} bytes", program, kMaxOutput));
  }
}

/// The output and exit status of "PROGRAM get" with `input` on stdin.
Result<std::pair<std::string, int>> Run(const Context& ctx, const std::string& program,
                                        const std::string& input) {
  DAVIT_TRY_ASSIGN(Pipe in, Pipe::Create());
  DAVIT_TRY_ASSIGN(Pipe out, Pipe::Create());
  // The input is far smaller than a pipe's buffer and is written before the child exists, while
  // our own read end keeps the pipe open: it can neither block nor raise SIGPIPE.
  DAVIT_TRY(WriteFull(in.write.get(), AsBytes(input)));
  DAVIT_TRY_ASSIGN(const pid_t pid, Spawn(program, in, out));
  Child child(pid);
  in.read.reset();
  in.write.reset();
  out.write.reset();
  DAVIT_TRY_ASSIGN(std::string output, ReadOutput(ctx, out.read.get(), program));
  int status = 0;
  while (!child.Ended(status)) {
    DAVIT_TRY(ctx.Check(program));
    poll(nullptr, 0, 2);
  }
  return std::pair(std::move(output), status);
}

class Helper final : public CredentialProvider {
 public:
  explicit Helper(std::string name) : name_(std::move(name)) {}

  Result<Credential> Get(const Context& ctx, const std::string& host, const std::string&) override {
    const bool valid = !name_.empty() && std::all_of(name_.begin(), name_.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '-' || c == '_' || c == '.';
    });
    if (!valid)
      return Error(Code::kInvalidArgument,
                   fmt::format("'{}' is not the name of a credential helper", name_));
    const std::string program = "docker-credential-" + name_;
    const Context bounded = ctx.WithTimeout(kHelperTimeout);
    const std::string server = host == "docker.io" ? "https://index.docker.io/v1/" : host;
    DAVIT_TRY_ASSIGN(const auto result, Run(bounded, program, server));
    return Interpret(program, host, result.first, result.second);
  }

 private:
  static Result<Credential> Interpret(const std::string& program, const std::string& host,
                                      const std::string& output, int status) {
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      // The protocol has no code for "nothing stored", only this sentence.
      if (output.find("credentials not found") != std::string::npos) return Credential();
      return Error(Code::kUnauthenticated,
                   fmt::format("{} failed for {} ({} {})", program, host,
                               WIFEXITED(status) ? "exit status" : "signal",
                               WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)))
          .WithHint(fmt::format("run '{} get' by hand to see why", program));
    }
    return ParseHelperOutput(program, output);
  }

  const std::string name_;
};

}  // namespace

std::unique_ptr<CredentialProvider> CredentialHelper(std::string name) {
  return std::make_unique<Helper>(std::move(name));
}

}  // namespace davit::registry
