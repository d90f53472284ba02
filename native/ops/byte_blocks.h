// Blocks of 64 elements, u8 or f32, as four vectors of 16 floats.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

inline constexpr int64_t kBlock = 64;

// The elements of a block that are there, from strip i on.
constexpr int64_t left_of(int64_t left, int i) { return left - i * kStripLanes; }

template <class V>
[[gnu::always_inline]] inline typename V::I32 load_byte_lanes(const uint8_t* p, int64_t left) {
  return left >= kStripLanes ? V::load_u8(p) : V::load_u8_part(p, static_cast<int>(left));
}

// What is left of a block is a number below 64, or any other for all of it; vectors behind it are not touched.
template <class V>
[[gnu::always_inline]] inline void load_block(const float* p, int64_t left, typename V::F32 (&v)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) v[i] = left_of(left, i) > 0 ? load_lanes<V>(p + i * kStripLanes, left_of(left, i)) : V::zero();
}

template <class V>
[[gnu::always_inline]] inline void store_block(float* p, const typename V::F32 (&v)[4], int64_t left) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    if (left_of(left, i) > 0) store_lanes<V>(p + i * kStripLanes, v[i], left_of(left, i));
}

template <class V>
[[gnu::always_inline]] inline void store_block(uint8_t* p, const typename V::Bytes& v, int64_t left) {
  left >= kBlock ? V::store_bytes(p, v) : V::store_bytes_part(p, v, static_cast<int>(left));
}

// A number of which the last bit counts one: what is added to its bits is added to it, as long as that is less than 2^22.
inline constexpr float kCounter = 0x1.8p+23f;
inline constexpr int32_t kCounterBits = 0x4b400000;

// The numbers that bytes stand for, as `dequantize` has them. The difference of a byte and the zero point is exact in either
// way; this one leaves the few ports that convert and add floats to others.
template <class V>
[[gnu::always_inline]] inline typename V::F32 dequantize_lanes(typename V::I32 q, int32_t zero_point, typename V::F32 scale) {
  const auto counted = V::as_floats(V::add(q, V::set1_i32(kCounterBits - zero_point)));
  return V::mul(V::sub(counted, V::set1(kCounter)), scale);
}

template <class V>
[[gnu::always_inline]] inline typename V::Bytes quantize_block(const typename V::F32 (&v)[4], const Quantizer& q) {
  typename V::I32 whole[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) whole[i] = quantize_high<V>(v[i], V::set1(q.inverse_scale), q.zero_point);
  return V::pack_u8(whole, q.zero_point);
}

// The same of numbers that INT32 holds in units of the output, so that the pack clamps them.
template <class V>
[[gnu::always_inline]] inline typename V::Bytes quantize_bounded_block(const typename V::F32 (&v)[4], const Quantizer& q) {
  typename V::I32 whole[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) whole[i] = V::round_i32(V::mul(v[i], V::set1(q.inverse_scale)));
  return V::pack_u8(whole, q.zero_point);
}

}  // namespace openwork::ops
