#pragma once
// How image commands reach registries, layouts and local files: the options they share.

#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "rafs/convert/blob_reader.h"
#include "storage/registry/client.h"

namespace davit::cli {

/// Options of every command that names an image.
struct ImageAccessOptions {
  std::string config_file;
  bool plain_http = false;
  std::vector<std::string> plain_http_hosts;
  bool insecure = false;
  std::vector<std::string> ca_files;
  std::string hosts_dir;
  std::string auth_file;
  std::string platform;
};
void AddImageAccessOptions(CLI::App& command, ImageAccessOptions& options, bool with_platform);

/// HTTP client, credentials and registries for the life of one command: by the configuration
/// (section registry), and by the options, which win. --ca-file and --plain-http-host come on top.
class ImageAccess {
 public:
  explicit ImageAccess(const ImageAccessOptions& options);
  ~ImageAccess();
  /// Whether the configuration and the files that options name can be used; everything that opens
  /// an image asks. A configuration that cannot is kInvalidArgument, whatever is wrong with it.
  Status usable() const;
  /// A reference that may be an `oci:` layout.
  Result<std::shared_ptr<registry::Repository>> Open(const registry::Reference& reference);
  /// The wanted platform, or this machine's.
  Result<oci::Platform> platform() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// An image's metadata and blobs, from a repository or from local files.
struct OpenedImage {
  std::unique_ptr<rafs::Metadata> metadata;
  rafs::BlobOpener open_blob;
  std::string manifest_digest;  // empty for local files
  std::vector<std::shared_ptr<void>> keep;
};
/// A local bootstrap file. One that was taken out of a blob does not know that blob's id: its file
/// has to be named by it, with or without an extension.
Result<std::unique_ptr<rafs::Metadata>> OpenBootstrapFile(const std::string& path);
/// `image` is a reference; or, with `bootstrap`, local files: blobs are `blob_dir`/<id>.
Result<OpenedImage> OpenImage(const Context& ctx, ImageAccess& access, const std::string& image,
                              const std::string& bootstrap, const std::string& blob_dir);

/// A Context that SIGINT and SIGTERM cancel. At most one at a time.
class SignalContext {
 public:
  SignalContext();
  ~SignalContext();
  const Context& ctx() const { return ctx_; }

 private:
  struct State;
  std::unique_ptr<State> state_;
  Context ctx_;
};

/// Prints an error the way all commands do; the exit code.
int Fail(Io& io, const Error& error);

}  // namespace davit::cli
