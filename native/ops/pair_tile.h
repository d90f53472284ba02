// The one register tile of every product of 16-bit pairs: exact sums in INT32, so that their order is free.
#pragma once

#include <cstdint>

#include "kernels/gemm.h"

namespace openwork::ops {

template <class V, int rows, int strips>
struct PairTile {
  typename V::I32 sum[rows][strips];

  // `a` and `b` hold, for each pair of the reduction, the pairs of 16 rows and of 16 lanes (`strip_stride` between the
  // strips of b); the first `rows` of the sixteen are used, which lie side by side.
  [[gnu::always_inline]] void multiply(const int32_t* a, const int32_t* b, int64_t strip_stride, int64_t pairs) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int s = 0; s < strips; ++s) sum[r][s] = V::zero_i32();
    for (int64_t i = 0; i < pairs; ++i, a += kStripLanes, b += kStripLanes) {
      // Without this the compiler gathers the broadcasts of all rows first and spills the sums.
      asm volatile("" ::: "memory");
      typename V::I32 lanes[strips];
#pragma GCC unroll 4
      for (int s = 0; s < strips; ++s) lanes[s] = V::load_i32(b + s * strip_stride);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const auto value = V::set1_i32(a[r]);
#pragma GCC unroll 4
        for (int s = 0; s < strips; ++s) sum[r][s] = V::dot_pairs(sum[r][s], value, lanes[s]);
      }
    }
  }
};

}  // namespace openwork::ops
