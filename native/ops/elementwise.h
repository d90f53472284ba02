// Operators on elements: quantize and back, round to BF16, activations, tables of bytes.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

// f(index, lanes left) for every 16 elements of the units [begin, end).
template <class F>
[[gnu::always_inline]] inline void each_strip(int64_t count, int64_t begin, int64_t end, const F& f) {
  const int64_t last = end * kElementBlock < count ? end * kElementBlock : count;
  for (int64_t i = begin * kElementBlock; i < last; i += kStripLanes) f(i, last - i);
}

template <class V>
void quantize(const ElementArgs& a, int64_t begin, int64_t end) {
  each_strip(a.count, begin, end, [&](int64_t i, int64_t left) {
    store_lanes<V>(static_cast<uint8_t*>(a.y) + i, openwork::quantize<V>(load_lanes<V>(a.a + i, left), a.quantizer), left);
  });
}

template <class V>
void activate(const ElementArgs& a, int64_t begin, int64_t end) {
  with_activation(a.activation.kind, [&]<Activation kind>() {
    each_strip(a.count, begin, end, [&](int64_t i, int64_t left) {
      typename V::F32 v[1] = {load_lanes<V>(a.a + i, left)};
      activate_each<V, kind, 1>(v, a.activation);
      store_lanes<V>(static_cast<float*>(a.y) + i, v[0], left);
    });
  });
}

// leaky_relu with a slope of each channel.
template <class V>
void p_relu(const PReluArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    for (int64_t i = 0; i < a.width; i += kStripLanes) {
      const int64_t at = row * a.width + i, left = a.width - i;
      const auto v = load_lanes<V>(a.x + at, left), slope = load_lanes<V>(a.slope + i, left);
      store_lanes<V>(a.y + at, V::fma(slope, V::min(V::zero(), v), V::max(v, V::zero())), left);
    }
}

template <class V>
void lookup(const LookupArgs& a, int64_t begin, int64_t end) {
  const int64_t last = end * kElementBlock < a.count ? end * kElementBlock : a.count;
  for (int64_t i = begin * kElementBlock; i < last; i += 64) {
    const int left = static_cast<int>(last - i < 64 ? last - i : 64);
    V::store_bytes_part(a.y + i, V::lookup256(V::load_bytes_part(a.x + i, left), a.table), left);
  }
}

// A difference of two bytes is exact in binary32.
template <class V>
void dequantize(const DequantizeArgs& a, int64_t begin, int64_t end) {
  const auto scale = V::set1(a.scale), zero_point = V::set1(static_cast<float>(a.zero_point));
  each_strip(a.count, begin, end, [&](int64_t i, int64_t left) {
    const auto q = left >= kStripLanes ? V::load_u8(a.x + i) : V::load_u8_part(a.x + i, static_cast<int>(left));
    store_lanes<V>(a.y + i, V::mul(V::sub(V::to_f32(q), zero_point), scale), left);
  });
}

template <class V>
void round_bf16(const RoundArgs& a, int64_t begin, int64_t end) {
  each_strip(a.count, begin, end, [&](int64_t i, int64_t left) {
    const auto v = load_lanes<V>(a.x + i, left);
    left >= kStripLanes ? V::store_bf16(a.y + i, v) : V::store_bf16_part(a.y + i, v, static_cast<int>(left));
  });
}

}  // namespace openwork::ops
