// Layer norm over rows, to float, to u8, or to both.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

template <class V>
struct LayerNormRow {
  using F32 = typename V::F32;

  [[gnu::always_inline]] static float mean(const float* x, int64_t width) {
    F32 sum = V::zero();
    for (int64_t i = 0; i < width; i += kStripLanes) sum = V::add(sum, load_lanes<V>(x + i, width - i));
    return V::reduce_add(sum) / static_cast<float>(width);
  }

  [[gnu::always_inline]] static float variance(const float* x, float mean, int64_t width) {
    const F32 m = V::set1(mean);
    F32 sum = V::zero();
    int64_t i = 0;
    for (; i + kStripLanes <= width; i += kStripLanes) {
      const F32 d = V::sub(V::load(x + i), m);
      sum = V::fma(d, d, sum);
    }
    if (i < width) {
      const int left = static_cast<int>(width - i);
      const F32 d = V::fill_from(V::sub(V::load_part(x + i, left), m), left, 0.0f);
      sum = V::fma(d, d, sum);
    }
    return V::reduce_add(sum) / static_cast<float>(width);
  }

  [[gnu::always_inline]] static void write(const LayerNormArgs& a, int64_t row, float mean, float rstd) {
    const F32 m = V::set1(mean), r = V::set1(rstd);
    const int64_t at = row * a.width;
    for (int64_t i = 0; i < a.width; i += kStripLanes) {
      const int64_t left = a.width - i;
      const F32 d = V::sub(load_lanes<V>(a.x + at + i, left), m);
      const F32 v = V::fma(V::mul(d, r), load_lanes<V>(a.gamma + i, left), load_lanes<V>(a.beta + i, left));
      if (a.y) store_lanes<V>(a.y + at + i, v, left);
      if (a.yq) store_lanes<V>(a.yq + at + i, quantize<V>(v, a.quantizer), left);
    }
  }
};

template <class V>
void layer_norm(const LayerNormArgs& a, int64_t begin, int64_t end) {
  using Row = LayerNormRow<V>;
  for (int64_t row = begin; row < end; ++row) {
    const float* x = a.x + row * a.width;
    const float mean = Row::mean(x, a.width);
    const float variance = Row::variance(x, mean, a.width);
    Row::write(a, row, mean, 1.0f / __builtin_sqrtf(variance + a.epsilon));
  }
}

}  // namespace openwork::ops
