// How one INT8 product is cut for the threads: group blocks times row blocks, the row blocks varying fastest, so that the
// weights of a group block are streamed once and met in L2 by the other row blocks.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/gemm.h"

namespace openwork {

struct LinearPartition {
  int64_t rows = 0, groups = 0, span = 1;
  int64_t row_blocks = 1, group_blocks = 1;
  int64_t row_step = 1;  // row blocks begin at multiples of it

  int64_t units() const { return row_blocks * group_blocks; }
  // Of the largest block.
  int64_t most_rows() const {
    const int64_t steps = (rows + row_step - 1) / row_step;
    return (steps + row_blocks - 1) / row_blocks * row_step;
  }
  Block block(int64_t unit) const {
    const int64_t r = unit % row_blocks, g = unit / row_blocks;
    return {row(r), row(r + 1), group(g), group(g + 1)};
  }

 private:
  int64_t row(int64_t r) const { return std::min(rows, (rows + row_step - 1) / row_step * r / row_blocks * row_step); }
  // Where group block g begins, at a whole span.
  int64_t group(int64_t g) const {
    const int64_t spans = (groups + span - 1) / span;
    return std::min(groups, spans * g / group_blocks * span);
  }
};

// A row block's activations stay in L1 beside one group's weights, a group block's weights in L2.
inline constexpr int64_t kRowBlockBytes = 24 * 1024;
inline constexpr int64_t kLeastRows = 48;
inline constexpr int64_t kGroupBlockBytes = 256 * 1024;
inline constexpr int64_t kUnitsPerThread = 4;

// The weights of one layer: `row_bytes` of activations to a row, `group_bytes` of packed weights to a group, of which `span`
// run together.
struct LinearSize {
  int64_t rows, row_bytes, groups, group_bytes, span;
  int64_t row_step = 1;
  bool panels = false;  // each block copies its activations once for its groups, and weights stream by each panel of 32 rows
};

// Then the weights of a block stay in L2 beside a panel, and are worth the copies that each block makes. Few rows are one block,
// so that each weight is read once.
inline constexpr int64_t kPanelGroupBytes = 768 * 1024;
inline constexpr int64_t kPanelBlockRows = 512;
inline constexpr int64_t kPanelUnitsPerThread = 2;
inline LinearPartition partition_panels(const LinearSize& s, int threads) {
  const auto divide_up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t row_blocks = divide_up(s.rows, kPanelBlockRows), wanted = threads == 1 ? 1 : kPanelUnitsPerThread * threads;
  const int64_t blocks = std::max(divide_up(s.groups * s.group_bytes, kPanelGroupBytes), divide_up(wanted, row_blocks));
  return {s.rows, s.groups, s.span, row_blocks, std::min(divide_up(s.groups, s.span), blocks), s.row_step};
}

// Rows that stand together in a vector: a block interleaves its activations for all groups of channels, so it has all of them
// where there are blocks enough for the threads, and the kernel itself cuts its rows by what L1 holds.
inline constexpr int64_t kMostRowSteps = 32;
inline LinearPartition partition_row_steps(const LinearSize& s, int threads) {
  const auto divide_up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t steps = divide_up(s.rows, s.row_step);
  const int64_t row_blocks = std::min(steps, divide_up(steps, threads * kMostRowSteps) * threads);
  return {s.rows, s.groups, s.span, row_blocks, std::min(divide_up(s.groups, s.span), divide_up(threads, row_blocks)), s.row_step};
}

inline LinearPartition partition_linear(const LinearSize& s, int threads) {
  if (s.panels) return partition_panels(s, threads);
  if (s.row_step > 1) return partition_row_steps(s, threads);
  const auto divide_up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  LinearPartition p{s.rows, s.groups, s.span, 1, 1};
  p.row_blocks = divide_up(s.rows, std::max(kLeastRows, kRowBlockBytes / s.row_bytes));
  const int64_t wanted = threads == 1 ? 1 : kUnitsPerThread * threads;
  const int64_t blocks = std::max(divide_up(s.groups * s.group_bytes, kGroupBlockBytes), divide_up(wanted, p.row_blocks));
  p.group_blocks = std::min(divide_up(s.groups, s.span), blocks);
  return p;
}

}  // namespace openwork
