#include "cli/image_access.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <filesystem>
#include <ostream>
#include <thread>

#include "cli/output.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/config/config.h"
#include "common/http/client.h"
#include "daemon/core/daemon_parts.h"
#include "rafs/convert/convert.h"
#include "rafs/image/image.h"

namespace davit::cli {

void AddImageAccessOptions(CLI::App& command, ImageAccessOptions& options, bool with_platform) {
  command.add_option("--config", options.config_file, "Configuration file (TOML or JSON)");
  command.add_flag("--plain-http", options.plain_http, "Speak HTTP instead of HTTPS to registries");
  command
      .add_option("--plain-http-host", options.plain_http_hosts,
                  "Speak HTTP to this registry host only (host[:port]); may be repeated")
      ->allow_extra_args(false);
  command.add_flag("--insecure", options.insecure, "Do not verify TLS certificates");
  command
      .add_option("--ca-file", options.ca_files,
                  "Trust the certificates in this PEM file too; may be repeated")
      ->allow_extra_args(false);
  command.add_option("--hosts-dir", options.hosts_dir,
                     "Mirrors: a directory of <host>/hosts.toml files as containerd has them "
                     "(registry.hosts_dir)");
  command.add_option("--auth-file", options.auth_file,
                     "Docker config.json with credentials (registry.docker_config; default: "
                     "$DOCKER_CONFIG, ~/.docker)");
  if (with_platform) {
    command.add_option("--platform", options.platform,
                       "os/architecture[/variant] (default: this machine's)");
  }
}

struct ImageAccess::State {
  ImageAccessOptions options;
  std::unique_ptr<http::Client> http;
  std::unique_ptr<registry::Registries> registries;
  Status usable;
};

namespace {

// What is named must be there; only the places that nobody named may be empty.
Status CheckNamed(const ImageAccessOptions& options) {
  if (!options.auth_file.empty()) {
    if (const auto text = ReadFile(options.auth_file, 1U << 20); !text.ok()) {
      return Error(text.error()).WithContext("--auth-file");
    }
  }
  for (const std::string& file : options.ca_files) {
    if (const auto text = ReadFile(file, 16U << 20); !text.ok()) {
      return Error(text.error()).WithContext("--ca-file");
    }
  }
  std::error_code failed;
  if (!options.hosts_dir.empty() && !std::filesystem::is_directory(options.hosts_dir, failed)) {
    return Error(Code::kNotFound, "--hosts-dir: " + options.hosts_dir + " is no directory")
        .WithHint("it holds <host>/hosts.toml files; leave it out to use no mirrors");
  }
  return {};
}

// The same configuration as the daemon's, and the options over it.
Result<config::Loaded> LoadConfig(const ImageAccessOptions& options) {
  config::Sources sources;
  sources.root = ::geteuid() == 0;
  sources.file = options.config_file.empty() ? config::DefaultFile(sources.root, sources.env)
                                             : options.config_file;
  auto loaded = config::Load(sources);
  if (!loaded.ok()) {
    // Without errno: the exit code is that of a wrong configuration, also when it cannot be read.
    const Error& error = loaded.error();
    return Error(Code::kInvalidArgument, error.message())
        .WithHint(error.hint().empty() ? "check the path and what the file says" : error.hint());
  }
  Config::Registry& registry = loaded->config.registry;
  // Here and not as overrides: only the configuration needs absolute paths.
  if (!options.hosts_dir.empty()) registry.hosts_dir = options.hosts_dir;
  if (!options.auth_file.empty()) registry.docker_config = options.auth_file;
  if (options.insecure) registry.skip_verify = true;
  registry.ca_files.insert(registry.ca_files.end(), options.ca_files.begin(),
                           options.ca_files.end());
  registry.plain_http_hosts.insert(registry.plain_http_hosts.end(),
                                   options.plain_http_hosts.begin(),
                                   options.plain_http_hosts.end());
  for (const std::string& warning : loaded->warnings) log::Warn(warning);
  return loaded;
}

}  // namespace

ImageAccess::ImageAccess(const ImageAccessOptions& options) : state_(std::make_unique<State>()) {
  state_->options = options;
  const auto loaded = LoadConfig(options);
  state_->usable = loaded.ok() ? CheckNamed(options) : Status(loaded.error());
  if (!state_->usable) return;
  state_->http = http::Client::Create({});
  state_->registries = registry::Registries::Create(
      daemon::RegistryOptionsOf(loaded->config, options.plain_http), *state_->http, Clock::Real(),
      daemon::ConfiguredCredentials(loaded->config));
}
ImageAccess::~ImageAccess() = default;

Status ImageAccess::usable() const { return state_->usable; }

Result<std::shared_ptr<registry::Repository>> ImageAccess::Open(
    const registry::Reference& reference) {
  DAVIT_TRY(state_->usable);
  return state_->registries->Open(reference);
}

Result<oci::Platform> ImageAccess::platform() const {
  if (state_->options.platform.empty()) return oci::Platform::Host();
  return oci::Platform::Parse(state_->options.platform);
}

Result<std::unique_ptr<rafs::Metadata>> OpenBootstrapFile(const std::string& path) {
  const std::string name = path.substr(path.find_last_of('/') + 1);
  const auto own = storage::BlobId::Parse(name.substr(0, name.find('.')));
  return rafs::Metadata::OpenFile(path, own.ok() ? std::optional(*own) : std::nullopt);
}

namespace {

Result<OpenedImage> OpenLocal(const std::string& bootstrap, const std::string& blob_dir) {
  OpenedImage out;
  std::error_code failed;
  if (!blob_dir.empty() && !std::filesystem::is_directory(blob_dir, failed)) {
    return Error(Code::kNotFound, "--blob-dir: " + blob_dir + " is no directory")
        .WithHint("name the directory that holds the blobs, each named by its id");
  }
  DAVIT_TRY_ASSIGN(out.metadata, OpenBootstrapFile(bootstrap));
  out.open_blob =
      [blob_dir](const rafs::BlobRecord& record) -> Result<std::shared_ptr<storage::BlobSource>> {
    if (blob_dir.empty()) {
      return Error(Code::kInvalidArgument, "blob " + record.id.value + " is needed")
          .WithHint("name the directory that holds it with --blob-dir");
    }
    return rafs::FileBlobSource(blob_dir + "/" + record.id.value);
  };
  return out;
}

}  // namespace

Result<OpenedImage> OpenImage(const Context& ctx, ImageAccess& access, const std::string& image,
                              const std::string& bootstrap, const std::string& blob_dir) {
  DAVIT_TRY(access.usable());
  if (!bootstrap.empty() && !image.empty()) {
    return Error(Code::kInvalidArgument, fmt::format("both the image '{}' and the local bootstrap "
                                                     "'{}' are named",
                                                     image, bootstrap))
        .WithHint("leave one of them out");
  }
  if (bootstrap.empty() && !blob_dir.empty()) {
    return Error(Code::kInvalidArgument,
                 "--blob-dir says where the blobs of --bootstrap are, which is missing")
        .WithHint(
            "name the bootstrap file too, or leave --blob-dir out: blobs of an image come from its "
            "registry");
  }
  if (!bootstrap.empty()) return OpenLocal(bootstrap, blob_dir);
  if (image.empty()) {
    return Error(Code::kInvalidArgument, "no image is named")
        .WithHint("name an image reference, or a local file with --bootstrap");
  }
  DAVIT_TRY_ASSIGN(const registry::Reference reference, registry::Reference::Parse(image));
  DAVIT_TRY_ASSIGN(const std::shared_ptr<registry::Repository> repository, access.Open(reference));
  DAVIT_TRY_ASSIGN(const oci::Platform platform, access.platform());
  DAVIT_TRY_ASSIGN(const rafs::ImageRef found,
                   rafs::FindImage(ctx, *repository, reference.TagOrDigest(), platform));
  DAVIT_TRY_ASSIGN(TempDir created, TempDir::Create("davit-image"));
  auto directory = std::make_shared<TempDir>(std::move(created));
  DAVIT_TRY(rafs::FetchBootstrap(ctx, *repository, found, directory->path()));
  OpenedImage out;
  DAVIT_TRY_ASSIGN(out.metadata, rafs::OpenBootstrap(directory->path()));
  out.manifest_digest = found.manifest.descriptor.digest;
  out.keep.push_back(directory);
  out.open_blob =
      [repository, layers = found.parsed.layers](
          const rafs::BlobRecord& record) -> Result<std::shared_ptr<storage::BlobSource>> {
    oci::Descriptor descriptor;
    descriptor.media_type = rafs::kMediaTypeBlob;
    descriptor.digest = "sha256:" + record.id.value;
    for (const oci::Descriptor& layer : layers) {
      if (layer.digest == descriptor.digest) descriptor = layer;
    }
    return repository->OpenBlob(descriptor);
  };
  return out;
}

// A thread that waits for the signals, instead of a handler: it may do anything.
struct SignalContext::State {
  std::stop_source stop;
  sigset_t before{};
  UniqueFd signals, end;  // the latter is written to end the thread
  std::thread waiter;

  void Wait() {
    std::array<pollfd, 2> fds{{{signals.get(), POLLIN, 0}, {end.get(), POLLIN, 0}}};
    while (true) {
      if (::poll(fds.data(), fds.size(), -1) < 0) {
        if (errno == EINTR) continue;
        return;
      }
      if (fds[1].revents != 0) return;
      signalfd_siginfo info{};
      if (fds[0].revents != 0 && ::read(signals.get(), &info, sizeof info) > 0) stop.request_stop();
    }
  }
};

SignalContext::SignalContext() : state_(std::make_unique<State>()) {
  ctx_.stop = state_->stop.get_token();
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  state_->signals.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  state_->end.reset(::eventfd(0, EFD_CLOEXEC));
  pthread_sigmask(SIG_SETMASK, nullptr, &state_->before);
  if (!state_->signals || !state_->end) return;  // the signals end the process at once, then
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  state_->waiter = std::thread([state = state_.get()] { state->Wait(); });
}

SignalContext::~SignalContext() {
  if (state_->waiter.joinable()) {
    ::eventfd_write(state_->end.get(), 1);
    state_->waiter.join();
  }
  pthread_sigmask(SIG_SETMASK, &state_->before, nullptr);
}

int Fail(Io& io, const Error& error) {
  const bool away = error.code() == Code::kUnavailable || error.code() == Code::kDeadlineExceeded;
  PrintError(
      io, "davit",
      away ? Error(error).WithHint(
                 "check the address and the network; a registry without TLS needs --plain-http")
           : error);
  // What the system refuses is no mistake in the words, even when it calls the argument invalid.
  const bool words = error.code() == Code::kInvalidArgument && error.sys_errno() == 0;
  return words ? kExitUsage : kExitFailure;
}

}  // namespace davit::cli
