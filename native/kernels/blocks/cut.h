// How products with rows in the lanes are cut: what packing and the kernels (run.h) agree on.
#pragma once

#include <cstdint>

#include "kernels/gemm.h"

namespace openwork::blocks {

// Vectors of rows of the largest tile on any instruction set, by the channels of a block row. More than four lose: their
// activations leave L1. A single channel has too few sums to cover a dot product's latency with less than eight.
constexpr int most_block_vectors(int channels) { return channels == 1 ? 8 : 4; }

// What such a tile's activations take up in a thread's scratch: whole quads of each run.
constexpr int64_t block_scratch_bytes(int64_t runs, int64_t run_bytes, int channels) {
  return runs * ((run_bytes + 3) / 4) * 4 * kStripLanes * most_block_vectors(channels);
}

}  // namespace openwork::blocks
