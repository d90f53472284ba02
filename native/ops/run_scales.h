// What a product of integers needs where its activations are quantized as it runs: their range, and its own scales and beginnings.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

// A number that is not greater is passed over, so NaN are.
template <class V>
void min_max_part(const MinMaxArgs& a, int64_t part) {
  const int64_t strips = (a.count + kStripLanes - 1) / kStripLanes;
  const int64_t begin = strips * part / a.parts * kStripLanes, end = strips * (part + 1) / a.parts * kStripLanes;
  const int64_t past = end < a.count ? end : a.count;
  auto least = V::zero(), greatest = V::zero();
  for (int64_t i = begin; i < past; i += kStripLanes) {
    const auto v = load_lanes<V>(a.x + i, past - i);
    least = V::max(V::sub(V::zero(), v), least);
    greatest = V::max(v, greatest);
  }
  a.y[2 * part] = 0.0f - V::reduce_max(least);
  a.y[2 * part + 1] = V::reduce_max(greatest);
}

template <class V>
void min_max(const MinMaxArgs& a, int64_t begin, int64_t end) {
  for (int64_t part = begin; part < end; ++part) min_max_part<V>(a, part);
}

// Plain loops, which the compiler turns into the set's own vectors.
template <class V>
void run_scales(const RunScalesArgs& a, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) a.start[c] = a.shift * a.sums[c];
  for (int64_t c = begin; c < end; ++c) a.product[c] = a.x_scale * a.scale[c];
}

}  // namespace openwork::ops
