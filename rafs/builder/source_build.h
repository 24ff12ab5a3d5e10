#pragma once
// What all sources share: the blob file, the pipeline that fills it, and the end of both.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "rafs/builder/blob_writer.h"
#include "rafs/builder/builder.h"
#include "rafs/builder/pipeline.h"

namespace davit::rafs {

/// Used by one thread. All references must outlive it.
class SourceBuild {
 public:
  static Result<std::unique_ptr<SourceBuild>> Start(const BuildOptions& options,
                                                    const std::string& work_dir, BlobSet& blobs,
                                                    ChunkDict* dict);
  ChunkPipeline& pipeline() { return *pipeline_; }
  /// Sets an attribute unless the format cannot hold it: then it is counted and left out.
  void SetXattr(TreeInode& inode, const std::string& name, std::string value);
  /// Interprets the tree's markers, waits for the chunks, appends the blob if there are any.
  Status Finish(Tree& tree);

 private:
  SourceBuild(const BuildOptions& options, BlobSet& blobs, BlobFile file)
      : options_(options), blobs_(blobs), file_(std::move(file)) {}
  const BuildOptions& options_;
  BlobSet& blobs_;
  BlobFile file_;
  ChunkDict own_dict_;
  std::uint64_t dropped_xattrs_ = 0;
  std::string dropped_example_;
  std::unique_ptr<ChunkPipeline> pipeline_;  // last: uses the others
};

/// Refuses a name that a directory cannot hold; `entry` is for the message.
Status CheckEntryName(std::string_view name, std::string_view entry);

}  // namespace davit::rafs
