// How one INT8 product is cut for the threads: row blocks times group blocks, the group blocks varying fastest.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/gemm.h"

namespace openwork {

struct LinearPartition {
  int64_t rows = 0, groups = 0;
  int64_t row_blocks = 1, group_blocks = 1;

  int64_t units() const { return row_blocks * group_blocks; }
  Block block(int64_t unit) const {
    const int64_t r = unit / group_blocks, g = unit % group_blocks;
    return {rows * r / row_blocks, rows * (r + 1) / row_blocks, groups * g / group_blocks, groups * (g + 1) / group_blocks};
  }
};

// A row block's activations stay in L2 beside the weights that stream through.
inline constexpr int64_t kRowBlockBytes = 64 * 1024;
inline constexpr int64_t kUnitsPerThread = 4;

// Many rows are cut by rows, so that a thread keeps its rows from step to step; few rows are cut by output channels too.
inline LinearPartition partition_linear(int64_t rows, int64_t k, int64_t groups, int threads) {
  LinearPartition p{rows, groups, 1, 1};
  const int64_t block = std::max<int64_t>(48, kRowBlockBytes / k);
  p.row_blocks = (rows + block - 1) / block;
  const int64_t wanted = threads == 1 ? 1 : kUnitsPerThread * threads;
  if (p.row_blocks < wanted) p.group_blocks = std::min(groups, (wanted + p.row_blocks - 1) / p.row_blocks);
  return p;
}

}  // namespace openwork
