// Mean over the kept positions, and the L2 norm of rows.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

template <class V>
void mean_pool_block(const MeanPoolArgs& a, int64_t batch, int64_t channel) {
  constexpr int strips = kPoolBlock / kStripLanes;
  const int64_t* mask = a.mask + batch * a.length;
  const float* x = a.x + batch * a.length * a.width + channel;
  typename V::F32 sum[strips];
  for (auto& s : sum) s = V::zero();
  int64_t count = 0;
  for (int64_t l = 0; l < a.length; ++l, x += a.width) {
    if (mask[l] == 0) continue;
    ++count;
    for (int s = 0; s < strips; ++s) {
      const int64_t left = a.width - channel - s * kStripLanes;
      if (left > 0) sum[s] = V::add(sum[s], load_lanes<V>(x + s * kStripLanes, left));
    }
  }
  const auto divisor = V::set1(count > 0 ? static_cast<float>(count) : 1e-9f);
  float* y = a.y + batch * a.width + channel;
  for (int s = 0; s < strips; ++s) {
    const int64_t left = a.width - channel - s * kStripLanes;
    if (left > 0) store_lanes<V>(y + s * kStripLanes, V::div(sum[s], divisor), left);
  }
}

template <class V>
void mean_pool(const MeanPoolArgs& a, int64_t begin, int64_t end) {
  const int64_t blocks = (a.width + kPoolBlock - 1) / kPoolBlock;
  for (int64_t unit = begin; unit < end; ++unit) mean_pool_block<V>(a, unit / blocks, unit % blocks * kPoolBlock);
}

template <class V>
void l2_normalize(const L2NormalizeArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = a.x + row * a.width;
    float* y = a.y + row * a.width;
    auto sum = V::zero();
    for (int64_t i = 0; i < a.width; i += kStripLanes) {
      const auto v = load_lanes<V>(x + i, a.width - i);
      sum = V::fma(v, v, sum);
    }
    const float norm = __builtin_sqrtf(V::reduce_add(sum));
    const auto divisor = V::set1(norm > a.epsilon ? norm : a.epsilon);
    for (int64_t i = 0; i < a.width; i += kStripLanes)
      store_lanes<V>(y + i, V::div(load_lanes<V>(x + i, a.width - i), divisor), a.width - i);
  }
}

}  // namespace openwork::ops
