#pragma once
// Flags of a tree's inodes as entries that a bootstrap can hold; the opposite of InterpretMarkers.

#include "rafs/builder/blob_writer.h"
#include "rafs/builder/builder.h"

namespace davit::rafs {

/// A tree without flags. kLayer: whiteouts and opaque directories become OCI's `.wh.` entries,
/// implicit directories and links into lower layers get an attribute. kImage: whiteouts are left
/// out, links into lower layers are an error. Unchanged parts are shared with `tree`.
Result<Tree> ExportMarkers(BootstrapKind kind, const Tree& tree);

}  // namespace davit::rafs
