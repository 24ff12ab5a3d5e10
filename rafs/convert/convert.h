#pragma once
// Whole images: OCI in, RAFS out (and the checks and the way back that the command line offers).

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/context.h"
#include "rafs/builder/builder.h"
#include "rafs/image/image.h"
#include "storage/registry/client.h"

namespace davit::rafs {

struct ConvertOptions {
  BuildOptions build;
  /// Each must be there. Empty: an index's manifest for the host, or every one with
  /// `all_platforms`; without an index the image that there is.
  std::vector<oci::Platform> platforms;
  bool all_platforms = false;
  bool keep_source_in_index = false;  // the index lists the ordinary manifests too
  bool with_referrer = false;         // manifest gets `subject` = the source manifest
  /// Manifest, config, bootstrap layer and index are of Docker's types. (Data blobs keep the one
  /// type that RAFS has for them.) kInvalidArgument with `with_referrer`: these have no subject.
  /// kUnsupported for what is no container image, and for OCI sources with `keep_source_in_index`.
  bool docker_media_types = false;
  bool dedup_across_layers = false;  // else layers stay re-usable between images
  /// Another RAFS image whose chunks need not be stored again; may be null. Blobs of it that are
  /// used are mounted or copied into the target's repository.
  registry::Repository* chunk_dict = nullptr;
  std::string chunk_dict_tag;
  std::string work_dir;  // empty: a temporary directory
  int parallel_transfers = 3;
};

/// What is going on, for progress bars and logs. Called from several threads, one at a time.
struct ConvertEvent {
  enum class Kind {
    kLayerStart,
    kLayerProgress,
    kLayerDone,
    kFetchProgress,
    kPushStart,
    kPushProgress,
    kPushDone,
    kManifest
  };
  Kind kind;
  std::string platform;
  std::size_t layer = 0, layers = 0;
  std::uint64_t bytes = 0, total = 0;  // as they are transferred
  std::uint64_t content = 0;           // of a layer: bytes of its files
  std::string text;                    // digest or name
};
using ConvertListener = std::function<void(const ConvertEvent&)>;

struct ConvertReport {
  oci::Descriptor target;           // what the target tag points to
  std::uint64_t source_bytes = 0;   // compressed layers read
  std::uint64_t content_bytes = 0;  // uncompressed file content
  std::uint64_t target_bytes = 0;   // blobs and bootstraps
  std::uint64_t pushed_bytes = 0;   // the rest was there
  std::uint64_t chunks = 0, deduplicated_chunks = 0;
  std::uint64_t inodes = 0;
};

/// Converts and pushes. `source` and `target` may be the same repository or layout.
Result<ConvertReport> ConvertImage(const Context& ctx, registry::Repository& source,
                                   const std::string& source_tag, registry::Repository& target,
                                   const std::string& target_tag, const ConvertOptions& options,
                                   const ConvertListener& listener = {});

/// `done` of `total` bytes (0: not known) of one step; called by one thread at a time.
using StepProgress =
    std::function<void(std::string_view step, std::uint64_t done, std::uint64_t total)>;

struct CheckReport {
  static constexpr std::size_t kMaxProblems = 100;
  std::uint64_t inodes = 0, files = 0, chunks = 0, bytes = 0;
  /// Of `chunks`: those that no file uses and the image has no digest of. Upstream's merge leaves
  /// them behind when a layer hides files of a lower one. They are not looked at.
  std::uint64_t unused_chunks = 0;
  std::vector<std::string> problems;  // empty: all is well; no more than kMaxProblems
  void Add(std::string problem) {
    if (problems.size() < kMaxProblems) problems.push_back(std::move(problem));
  }
};
/// Walks the whole tree, decodes and verifies every chunk. A chunk that a file uses and that has
/// neither a digest nor a checksum is a problem.
Result<CheckReport> CheckBootstrap(
    const Context& ctx, const Metadata& metadata,
    const std::function<Result<std::shared_ptr<storage::BlobSource>>(const BlobRecord&)>& open_blob,
    const StepProgress& progress = {});
/// Compares names, attributes, hard links and content with the OCI image that it was made of, and
/// adds what differs to `report`. Content is compared by the digests that CheckBootstrap()
/// verifies.
Status CompareWithSource(const Context& ctx, const Metadata& metadata, registry::Repository& source,
                         const std::string& source_tag, const oci::Platform& platform,
                         CheckReport& report, const StepProgress& progress = {});

/// Streams the image's content as a PAX tar to `sink`.
Status UnpackImage(
    const Context& ctx, const Metadata& metadata,
    const std::function<Result<std::shared_ptr<storage::BlobSource>>(const BlobRecord&)>& open_blob,
    const storage::ByteSink& sink, const StepProgress& progress = {});

/// The bootstrap that a layer blob holds, found by its TOC or, without one, by the section header
/// at its end. kNotFound when there is none.
Result<std::string> ReadInlineBootstrap(const Context& ctx, storage::BlobSource& blob);

/// A file as a blob source; for local blobs and tests.
Result<std::shared_ptr<storage::BlobSource>> FileBlobSource(const std::string& path);

}  // namespace davit::rafs
