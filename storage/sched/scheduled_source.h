#pragma once
// A source whose reads go through the scheduler, for readers of tables and other small things that
// know only BlobSource.

#include <memory>

#include "storage/blob/blob.h"
#include "storage/sched/scheduler.h"

namespace davit::storage {

/// Reads of the result have the scheduler's patience, limits and order. `scheduler` outlives it.
std::shared_ptr<BlobSource> WithScheduler(std::shared_ptr<BlobSource> source, Scheduler& scheduler);

}  // namespace davit::storage
