// Products with rows that are read once where they lie, for a few rows on the other side.
#pragma once

#include "ops/attention_head.h"

namespace openwork::ops {

// Sixteen channels from `d` on of the sixteen rows from `j` on, of `count`: block[i] holds channel d + i of each row.
template <class V>
[[gnu::always_inline]] inline void transposed_block(const PastAndFresh& x, int64_t j, int64_t count, int64_t d,
                                                    typename V::F32 (&block)[kStripLanes]) {
  for (int i = 0; i < kStripLanes; ++i) block[i] = j + i < count ? load_lanes<V>(x[j + i] + d, x.size - d) : V::zero();
  V::transpose(block);
}

// Products of `rows` rows of q with the sixteen rows of x from `j` on, in whose lanes they are: in increasing order of the channel
// from +0.
template <class V, int rows>
[[gnu::always_inline]] inline void dot_rows(typename V::F32 (&sum)[rows][1], const float* q, int64_t stride, const PastAndFresh& x,
                                            int64_t j, int64_t count) {
  for (auto& row : sum) row[0] = V::zero();
  for (int64_t d = 0; d < x.size; d += kStripLanes) {
    typename V::F32 block[kStripLanes];
    transposed_block<V>(x, j, count, d, block);
    const int channels = x.size - d < kStripLanes ? static_cast<int>(x.size - d) : kStripLanes;
    const auto add = [&](int i) {
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) sum[r][0] = V::fma(V::set1(q[r * stride + d + i]), block[i], sum[r][0]);
    };
    if (channels == kStripLanes)
#pragma GCC unroll 16
      for (int i = 0; i < kStripLanes; ++i) add(i);
    else
      for (int i = 0; i < channels; ++i) add(i);
  }
}

// Strips of channels whose sums are enough to hide the latency of one chain each.
template <class V>
constexpr int mixed_strips(int rows) {
  const int strips = V::kFloatRows * V::kFloatStrips / rows;
  return strips > 4 ? 4 : strips < 1 ? 1 : strips;
}

// Sums over `count` rows of x of each row times its weight, from channel `d` on, in increasing order of the row from +0.
template <class V, int rows, int width>
[[gnu::always_inline]] inline void mix_rows(typename V::F32 (&sum)[rows][width], const float* weight, int64_t stride,
                                            const PastAndFresh& x, int64_t d, int64_t count) {
  for (auto& row : sum)
    for (auto& s : row) s = V::zero();
  for (int64_t j = 0; j < count; ++j) {
    const float* at = x[j] + d;
    typename V::F32 lanes[width];
#pragma GCC unroll 4
    for (int s = 0; s < width; ++s) lanes[s] = load_lanes<V>(at + s * kStripLanes, x.size - d - s * kStripLanes);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const auto w = V::set1(weight[r * stride + j]);
#pragma GCC unroll 4
      for (int s = 0; s < width; ++s) sum[r][s] = V::fma(w, lanes[s], sum[r][s]);
    }
  }
}

}  // namespace openwork::ops
