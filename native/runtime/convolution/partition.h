// How a convolution is cut for the threads and the caches: blocks of output pixels times blocks of groups of output channels.
#pragma once

#include "runtime/convolution/indirection.h"
#include "runtime/linear/partition.h"

namespace openwork {

// The packed weights of a convolution: `group_bytes` to a group, of which `span` run together.
struct ConvWeightSize {
  int64_t groups, group_bytes, span;
  int64_t row_step = 1;  // rows that stand together in a vector, or in a panel
  bool panels = false;   // as in LinearSize
};

// The pointers of a block lie in L1 beside its pixels.
inline constexpr int64_t kTableBytes = 8 * 1024;

// The output pixels of a block at most: their pointers and new input pixels stay in L1. An input pixel counts once, whatever
// the number of taps that see it.
int64_t most_block_rows(const Indirection& indirection);

// Patches of a very wide run may not grow without bound either; a block then has fewer rows, down to kLeastRows.
inline constexpr int64_t kMostScratchBytes = 512 * 1024;

LinearPartition partition_convolution(const Indirection& indirection, const ConvWeightSize& weights, int threads);

}  // namespace openwork
