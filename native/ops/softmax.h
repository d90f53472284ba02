// Softmax of rows.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

template <class V>
float largest_of_row(const float* x, int64_t width) {
  auto most = V::set1(-__builtin_inff());
  for (int64_t i = 0; i < width; i += kStripLanes) {
    const int64_t left = width - i;
    const auto v = load_lanes<V>(x + i, left);
    most = V::max(left >= kStripLanes ? v : V::fill_from(v, static_cast<int>(left), -__builtin_inff()), most);
  }
  return V::reduce_max(most);
}

// exp(x - top) to `to`, and the sum of all.
template <class V>
float exponentials(const float* x, int64_t width, float top, float* to) {
  auto sum = V::zero();
  for (int64_t i = 0; i < width; i += kStripLanes) {
    const int64_t left = width - i;
    auto e = exp<V>(V::sub(load_lanes<V>(x + i, left), V::set1(top)));
    if (left < kStripLanes) e = V::fill_from(e, static_cast<int>(left), 0.0f);
    sum = V::add(sum, e);
    store_lanes<V>(to + i, e, left);
  }
  return V::reduce_add(sum);
}

template <class V>
void softmax(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = a.x + row * a.width;
    float* made = a.y_bytes ? a.scratch : static_cast<float*>(a.y) + row * a.width;
    const float top = largest_of_row<V>(x, a.width);
    const auto factor = V::set1(1.0f / exponentials<V>(x, a.width, top, made));
    for (int64_t i = 0; i < a.width; i += kStripLanes) {
      const int64_t left = a.width - i;
      const auto p = V::mul(load_lanes<V>(made + i, left), factor);
      if (a.y_bytes)
        store_lanes<V>(static_cast<uint8_t*>(a.y) + row * a.width + i, openwork::quantize<V>(p, a.quantizer), left);
      else
        store_lanes<V>(made + i, p, left);
    }
  }
}

}  // namespace openwork::ops
