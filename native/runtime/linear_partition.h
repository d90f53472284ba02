// How one INT8 product is cut for the threads: group blocks times row blocks, the row blocks varying fastest, so that the
// weights of a group block are streamed once and met in L2 by the other row blocks.
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
    const int64_t r = unit % row_blocks, g = unit / row_blocks;
    return {rows * r / row_blocks, rows * (r + 1) / row_blocks, groups * g / group_blocks, groups * (g + 1) / group_blocks};
  }
};

// A row block's activations stay in L1 beside one group's weights, a group block's weights in L2.
inline constexpr int64_t kRowBlockBytes = 24 * 1024;
inline constexpr int64_t kLeastRows = 48;
inline constexpr int64_t kGroupBlockBytes = 256 * 1024;
inline constexpr int64_t kUnitsPerThread = 4;

// `group_bytes` are the packed weights of one group.
inline LinearPartition partition_linear(int64_t rows, int64_t k, int64_t groups, int64_t group_bytes, int threads) {
  LinearPartition p{rows, groups, 1, 1};
  const auto divide_up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  p.row_blocks = divide_up(rows, std::max(kLeastRows, kRowBlockBytes / k));
  const int64_t wanted = threads == 1 ? 1 : kUnitsPerThread * threads;
  const int64_t blocks = std::max(divide_up(groups * group_bytes, kGroupBlockBytes), divide_up(wanted, p.row_blocks));
  p.group_blocks = std::min(groups, blocks);
  return p;
}

}  // namespace openwork
