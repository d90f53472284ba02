// The one register tile of every FP32 product: rows of `a` times strips of 16 lanes of `b`, the sum in increasing order of
// the reduction index from +0, as docs/arithmetic.md has it.
#pragma once

#include <cstdint>

#include "kernels/gemm.h"

namespace openwork::ops {

// `a` is [rows, k] with `stride` elements between rows; `b` is [strips][k][16] with `strip_stride` between strips.
template <class V, int rows, int strips>
[[gnu::always_inline]] inline void float_products(typename V::F32 (&sum)[rows][strips], const float* a, int64_t stride, const float* b,
                                                  int64_t strip_stride, int64_t k) {
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int s = 0; s < strips; ++s) sum[r][s] = V::zero();
  // One base for every four rows, so that the addresses of a tile fit the general registers.
  const float* base[(rows + 3) / 4];
  for (int i = 0; i < (rows + 3) / 4; ++i) base[i] = a + 4 * i * stride;
  for (int64_t i = 0; i < k; ++i, b += kStripLanes) {
    typename V::F32 lanes[strips];
#pragma GCC unroll 4
    for (int s = 0; s < strips; ++s) lanes[s] = V::load(b + s * strip_stride);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const auto value = V::set1(base[r / 4][(r % 4) * stride + i]);
#pragma GCC unroll 4
      for (int s = 0; s < strips; ++s) sum[r][s] = V::fma(value, lanes[s], sum[r][s]);
    }
  }
}

// Calls body.template operator()<n>(row) over [begin, end) with n = `rows`, then the halves of it, so that any count is
// covered by few tiles.
template <int rows, class Body>
[[gnu::always_inline]] inline void cover(int64_t begin, int64_t end, const Body& body) {
  for (; end - begin >= rows; begin += rows) body.template operator()<rows>(begin);
  if constexpr (rows > 1) cover<rows / 2>(begin, end, body);
}

template <class V>
[[gnu::always_inline]] inline typename V::F32 load_lanes(const float* p, int64_t left) {
  return left >= kStripLanes ? V::load(p) : V::load_part(p, static_cast<int>(left));
}

template <class V>
[[gnu::always_inline]] inline void store_lanes(float* p, typename V::F32 v, int64_t left) {
  left >= kStripLanes ? V::store(p, v) : V::store_part(p, v, static_cast<int>(left));
}

template <class V>
[[gnu::always_inline]] inline void store_lanes(uint8_t* p, typename V::I32 v, int64_t left) {
  left >= kStripLanes ? V::store_u8(p, v) : V::store_u8_part(p, v, static_cast<int>(left));
}

}  // namespace openwork::ops
