#include "tests/support/registry_process/registry_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>
#include <vector>

extern char** environ;

namespace davit::testing {
namespace {

// bcrypt of "secret", cost 5.
constexpr const char* kPasswordFile =
    "davit:$2b$05$davitdavitdavitdavitde6huyg6.11x3ITStG2Hhl/obnCYLafxi\n";

Result<pid_t> Spawn(const std::vector<std::string>& words, const std::string& log) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, words[0].c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return Error::FromErrno(error, "run " + words[0]);
  return pid;
}

Status RunToEnd(const std::vector<std::string>& words, const std::string& log) {
  DAVIT_TRY_ASSIGN(const pid_t pid, Spawn(words, log));
  int status = 0;
  waitpid(pid, &status, 0);
  if (status == 0) return {};
  return Error(Code::kInternal, words[0] + " failed: " + ReadFile(log).value_or(""));
}

int FreePort() {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) return 0;
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

bool Listens(int port) {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
}

class Process final : public RegistryProcess {
 public:
  Process(TempDir dir, pid_t pid, int port) : dir_(std::move(dir)), pid_(pid), port_(port) {}
  ~Process() override {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  std::string host() const override { return fmt::format("127.0.0.1:{}", port_); }

  static Result<std::unique_ptr<RegistryProcess>> Start(TempDir dir, int port,
                                                        const std::vector<std::string>& words) {
    const std::string log = dir.path() + "/log";
    DAVIT_TRY_ASSIGN(const pid_t pid, Spawn(words, log));
    auto out = std::make_unique<Process>(std::move(dir), pid, port);
    for (int i = 0; i < 400; ++i) {
      if (Listens(port)) return std::unique_ptr<RegistryProcess>(std::move(out));
      std::this_thread::sleep_for(std::chrono::milliseconds(25));
    }
    return Error(Code::kInternal,
                 words[0] + " does not listen: " + ReadFile(log).value_or("(no output)"));
  }

 private:
  TempDir dir_;
  const pid_t pid_;
  const int port_;
};

Status Write(const std::string& path, const std::string& text) {
  return WriteFileAtomic(path, AsBytes(text), 0600);
}

}  // namespace

Result<TestCertificates> TestCertificates::Create(const std::string& directory) {
  const std::string log = directory + "/openssl.log";
  const TestCertificates out{directory + "/ca.pem", directory + "/server.pem",
                             directory + "/server.key"};
  const std::string ca_key = directory + "/ca.key", request = directory + "/server.csr";
  DAVIT_TRY(Write(directory + "/ext", "subjectAltName=IP:127.0.0.1,DNS:localhost\n"));
  const std::string openssl = "/usr/bin/openssl";
  DAVIT_TRY(RunToEnd(
      {openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
       "-nodes", "-days", "2", "-subj", "/CN=davit test CA", "-keyout", ca_key, "-out", out.ca},
      log));
  DAVIT_TRY(
      RunToEnd({openssl, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", out.key, "-out", request},
               log));
  DAVIT_TRY(RunToEnd(
      {openssl, "x509", "-req", "-in", request, "-CA", out.ca, "-CAkey", ca_key, "-CAcreateserial",
       "-days", "2", "-extfile", directory + "/ext", "-out", out.certificate},
      log));
  return out;
}

Result<std::unique_ptr<RegistryProcess>> RegistryProcess::StartDockerRegistry(
    const Options& options) {
  const std::string program = "/usr/bin/docker-registry";
  if (access(program.c_str(), X_OK) != 0)
    return Error(Code::kNotFound, program + " is not installed");
  DAVIT_TRY_ASSIGN(TempDir dir, TempDir::Create("davit-registry-"));
  const int port = FreePort();
  std::string config = fmt::format(
      "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\n"
      "  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{}\n  secret: test\n",
      dir.path(), port);
  if (options.tls) {
    config += fmt::format("  tls: {{certificate: {}, key: {}}}\n", options.tls->certificate,
                          options.tls->key);
  }
  if (options.login) {
    DAVIT_TRY(Write(dir.path() + "/htpasswd", kPasswordFile));
    config += fmt::format("auth:\n  htpasswd: {{realm: test, path: {}/htpasswd}}\n", dir.path());
  }
  const std::string file = dir.path() + "/config.yml";
  DAVIT_TRY(Write(file, config));
  return Process::Start(std::move(dir), port, {program, "serve", file});
}

Result<std::unique_ptr<RegistryProcess>> RegistryProcess::StartZot(const Options& options) {
  const char* named = std::getenv("DAVIT_ZOT");
  if (named == nullptr)
    return Error(Code::kNotFound, "no zot: DAVIT_ZOT names it; tests/support/zot/build makes one");
  const std::string program = named;
  if (access(program.c_str(), X_OK) != 0)
    return Error(Code::kFailedPrecondition, "DAVIT_ZOT names " + program + ", which is no program");
  DAVIT_TRY_ASSIGN(TempDir dir, TempDir::Create("davit-zot-"));
  const int port = FreePort();
  std::string http = fmt::format(R"("address":"127.0.0.1","port":"{}")", port);
  if (options.tls) {
    http += fmt::format(R"(,"tls":{{"cert":"{}","key":"{}"}})", options.tls->certificate,
                        options.tls->key);
  }
  if (options.login) {
    DAVIT_TRY(Write(dir.path() + "/htpasswd", kPasswordFile));
    http += fmt::format(R"(,"auth":{{"htpasswd":{{"path":"{}/htpasswd"}}}})", dir.path());
  }
  const std::string config = fmt::format(
      R"({{"distSpecVersion":"1.1.0","storage":{{"rootDirectory":"{}/data"}},"http":{{{}}},)"
      R"("log":{{"level":"error"}}}})",
      dir.path(), http);
  const std::string file = dir.path() + "/config.json";
  DAVIT_TRY(Write(file, config));
  return Process::Start(std::move(dir), port, {program, "serve", file});
}

}  // namespace davit::testing
