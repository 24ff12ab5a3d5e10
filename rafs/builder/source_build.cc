#include "rafs/builder/source_build.h"

#include <fmt/format.h>

#include <utility>

#include "common/base/log.h"
#include "rafs/builder/xattr_block.h"

namespace davit::rafs {

Result<std::unique_ptr<SourceBuild>> SourceBuild::Start(const BuildOptions& options,
                                                        const std::string& work_dir, BlobSet& blobs,
                                                        ChunkDict* dict) {
  DAVIT_TRY(options.Validate());
  DAVIT_TRY_ASSIGN(BlobFile file, BlobFile::Create(work_dir));
  std::unique_ptr<SourceBuild> build(new SourceBuild(options, blobs, std::move(file)));
  DAVIT_TRY_ASSIGN(
      build->pipeline_,
      ChunkPipeline::Start(options, build->file_, dict != nullptr ? *dict : build->own_dict_,
                           static_cast<std::uint32_t>(blobs.blobs.size())));
  return build;
}

void SourceBuild::SetXattr(TreeInode& inode, const std::string& name, std::string value) {
  if (XattrNameIsSupported(name)) {
    inode.xattrs[name] = std::move(value);
    return;
  }
  if (dropped_xattrs_++ == 0) dropped_example_ = name;
}

Status SourceBuild::Finish(Tree& tree) {
  if (dropped_xattrs_ > 0) {
    log::Warn("extended attributes that RAFS cannot hold were left out",
              {{"count", dropped_xattrs_}, {"example", dropped_example_}});
  }
  DAVIT_TRY(InterpretMarkers(tree, options_.whiteouts));
  DAVIT_TRY_ASSIGN(ChunkOutput output, pipeline_->Finish());
  if (output.chunks.empty()) return {};
  return SealBlob(std::move(file_), std::move(output), tree, options_, blobs_);
}

Status CheckEntryName(std::string_view name, std::string_view entry) {
  const char* problem = nullptr;
  if (name == "..") problem = "contains '..'";
  if (name.size() > 255) problem = "has a name of more than 255 bytes";
  if (name.find('\0') != std::string_view::npos) problem = "has a name with a NUL byte";
  if (problem == nullptr) return {};
  return Error(Code::kInvalidArgument, fmt::format("entry '{}' {}", entry, problem))
      .WithHint("no file system can hold it; repair the source");
}

}  // namespace davit::rafs
