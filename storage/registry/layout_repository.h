#pragma once
// An OCI layout directory as a repository.

#include <memory>
#include <string>

#include "storage/registry/client.h"

namespace davit::registry {

/// `path` is created by the first push. Safe among processes: blobs are complete when they appear,
/// index.json is replaced as a whole under a lock file.
std::shared_ptr<Repository> MakeLayoutRepository(std::string path, Clock& clock);

}  // namespace davit::registry
