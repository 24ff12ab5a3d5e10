#pragma once
// A layer of an image as a pull stream: downloaded on a thread of its own, a bounded piece ahead.

#include <memory>

#include "common/base/context.h"
#include "common/codec/stream.h"
#include "storage/registry/client.h"

namespace davit::rafs {

/// Starts the download at once; at most `ahead_bytes` wait to be read. The layer's digest is
/// verified at its end: the stream then ends with an error instead of 0. Destroying the stream
/// early cancels the download. `repository` must outlive it.
std::unique_ptr<codec::ByteStream> StreamLayer(const Context& ctx, registry::Repository& repository,
                                               const oci::Descriptor& layer,
                                               std::size_t ahead_bytes = 16U << 20);

}  // namespace davit::rafs
