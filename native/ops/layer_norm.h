// Layer norm over rows, to float, to u8, or to both.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

template <class V>
struct LayerNormRow {
  using F32 = typename V::F32;

  // Rows at once: one row's chain of additions would leave the ports idle.
  static constexpr int kRows = 4;

  template <int rows>
  [[gnu::always_inline]] static void mean(const float* x, int64_t width, float (&result)[rows]) {
    F32 sum[rows];
    for (auto& s : sum) s = V::zero();
    for (int64_t i = 0; i < width; i += kStripLanes)
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) sum[r] = V::add(sum[r], load_lanes<V>(x + r * width + i, width - i));
    for (int r = 0; r < rows; ++r) result[r] = V::reduce_add(sum[r]) / static_cast<float>(width);
  }

  template <int rows>
  [[gnu::always_inline]] static void variance(const float* x, const float (&mean)[rows], int64_t width, float (&result)[rows]) {
    F32 m[rows], sum[rows];
    for (int r = 0; r < rows; ++r) {
      m[r] = V::set1(mean[r]);
      sum[r] = V::zero();
    }
    int64_t i = 0;
    for (; i + kStripLanes <= width; i += kStripLanes)
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) {
        const F32 d = V::sub(V::load(x + r * width + i), m[r]);
        sum[r] = V::fma(d, d, sum[r]);
      }
    for (int r = 0; r < rows; ++r) {
      const int left = static_cast<int>(width - i);
      const F32 d = V::fill_from(V::sub(V::load_part(x + r * width + i, left), m[r]), left, 0.0f);
      result[r] = V::reduce_add(V::fma(d, d, sum[r])) / static_cast<float>(width);
    }
  }

  template <bool to_y, bool to_yq>
  [[gnu::always_inline]] static void strip(const LayerNormArgs& a, int64_t at, int64_t i, int64_t left, F32 m, F32 r) {
    const F32 d = V::sub(load_lanes<V>(a.x + at + i, left), m);
    const F32 v = V::fma(V::mul(d, r), load_lanes<V>(a.gamma + i, left), load_lanes<V>(a.beta + i, left));
    if constexpr (to_y) store_lanes<V>(a.y + at + i, v, left);
    if constexpr (to_yq) {
      const F32 inverse = load_lanes<V>(a.inverse_scale + i, left);
      store_lanes<V>(a.yq + at + i, openwork::quantize<V>(v, inverse, a.y_zero_point), left);
    }
  }

  template <bool to_y, bool to_yq>
  static void write(const LayerNormArgs& a, int64_t row, float mean, float rstd) {
    const F32 m = V::set1(mean), r = V::set1(rstd);
    const int64_t at = row * a.width;
    int64_t i = 0;
    for (; i + kStripLanes <= a.width; i += kStripLanes) strip<to_y, to_yq>(a, at, i, kStripLanes, m, r);
    if (i < a.width) strip<to_y, to_yq>(a, at, i, a.width - i, m, r);
  }

  using Write = void (*)(const LayerNormArgs&, int64_t row, float mean, float rstd);
  static Write choose_write(const LayerNormArgs& a) {
    if (!a.yq) return write<true, false>;
    return a.y ? write<true, true> : write<false, true>;
  }
};

template <class V>
void layer_norm(const LayerNormArgs& a, int64_t begin, int64_t end) {
  using Row = LayerNormRow<V>;
  const auto write = Row::choose_write(a);
  cover<Row::kRows>(begin, end, [&]<int rows>(int64_t row) {
    const float* x = a.x + row * a.width;
    float mean[rows], variance[rows];
    Row::mean(x, a.width, mean);
    Row::variance(x, mean, a.width, variance);
    for (int r = 0; r < rows; ++r) write(a, row + r, mean[r], 1.0f / __builtin_sqrtf(variance[r] + a.epsilon));
  });
}

}  // namespace openwork::ops
