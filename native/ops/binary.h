// Operators on the elements of two values, each u8 or f32: 64 elements at a time.
#pragma once

#include "ops/byte_blocks.h"

namespace openwork::ops {

// What a block of one side stands for.
template <class V, bool bytes>
[[gnu::always_inline]] inline void load_side(const BinarySide& side, int64_t at, int64_t left, typename V::F32 (&v)[4]) {
  if constexpr (!bytes) return load_block<V>(static_cast<const float*>(side.data) + at, left, v);
  const auto scale = V::set1(side.scale);
  const uint8_t* p = static_cast<const uint8_t*>(side.data) + at;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const int64_t lanes = left_of(left, i);
    v[i] = lanes > 0 ? dequantize_lanes<V>(load_byte_lanes<V>(p + i * kStripLanes, lanes), side.zero_point, scale) : V::zero();
  }
}

template <class V>
[[gnu::always_inline]] inline void activate_block(const ActivationFunction& f, typename V::F32 (&v)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    if (f.kind == Activation::relu) v[i] = relu<V>(v[i]);
    if (f.kind == Activation::clip) v[i] = clip<V>(v[i], f);
  }
}

// A quantizer never decreases, so what an activation clamps may be clamped behind it.
template <class V, bool bytes>
[[gnu::always_inline]] inline void store_made(const BinaryArgs& a, typename V::F32 (&v)[4], int64_t at, int64_t left) {
  if constexpr (bytes) {
    const auto whole = a.bounded ? quantize_bounded_block<V>(v, a.quantizer) : quantize_block<V>(v, a.quantizer);
    const auto made = V::max_u8(whole, V::set1_u8(a.low));
    store_block<V>(static_cast<uint8_t*>(a.y) + at, V::min_u8(made, V::set1_u8(a.high)), left);
  } else {
    activate_block<V>(a.activation, v);
    store_block<V>(static_cast<float*>(a.y) + at, v, left);
  }
}

// Elements that follow each other, and where they begin.
struct BinaryRange {
  int64_t a, b, y, count;
};

// How b lies: bytes or floats along with a, or one float.
enum class BinaryOther { bytes, floats, one };

template <class V, bool a_bytes, BinaryOther other, bool y_bytes, class Word>
[[gnu::always_inline]] inline void binary_range(const BinaryArgs& a, const BinaryRange& range, const Word& word) {
  typename V::F32 v[4], w[4];
  if constexpr (other == BinaryOther::one)
    for (auto& each : w) each = V::set1(*static_cast<const float*>(a.b.data));
  const auto block = [&](int64_t at, int64_t left) {
    load_side<V, a_bytes>(a.a, range.a + at, left, v);
    if constexpr (other != BinaryOther::one) load_side<V, other == BinaryOther::bytes>(a.b, range.b + at, left, w);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[i] = word(v[i], w[i]);
    store_made<V, y_bytes>(a, v, range.y + at, left);
  };
  int64_t at = 0;
  for (; range.count - at >= kBlock; at += kBlock) block(at, kBlock);
  if (at < range.count) block(at, range.count - at);
}

template <class V, bool a_bytes, BinaryOther other, bool y_bytes, class Word>
void binary_of(const BinaryArgs& a, int64_t begin, int64_t end, const Word& word) {
  if (a.spread == BinaryArgs::Spread::rows) {
    for (int64_t row = begin; row < end; ++row)
      binary_range<V, a_bytes, other, y_bytes>(a, {row * a.unit, row / a.repeat * a.unit, row * a.y_stride, a.unit}, word);
    return;
  }
  const int64_t from = begin * a.unit, to = end * a.unit < a.count ? end * a.unit : a.count;
  binary_range<V, a_bytes, other, y_bytes>(a, {from, from, from, to - from}, word);
}

template <class V, bool a_bytes, BinaryOther other, class Word>
void binary_with(const BinaryArgs& a, int64_t begin, int64_t end, const Word& word) {
  a.y_bytes ? binary_of<V, a_bytes, other, true>(a, begin, end, word) : binary_of<V, a_bytes, other, false>(a, begin, end, word);
}

template <class V, bool a_bytes, class Word>
void binary_from(const BinaryArgs& a, int64_t begin, int64_t end, const Word& word) {
  if (a.spread == BinaryArgs::Spread::one) return binary_with<V, a_bytes, BinaryOther::one>(a, begin, end, word);
  a.b.bytes ? binary_with<V, a_bytes, BinaryOther::bytes>(a, begin, end, word)
            : binary_with<V, a_bytes, BinaryOther::floats>(a, begin, end, word);
}

#define OPENWORK_BINARY(op, word)                                                                \
  template <class V>                                                                             \
  void op(const BinaryArgs& a, int64_t begin, int64_t end) {                                     \
    const auto one = [](typename V::F32 x, typename V::F32 y) { return V::word(x, y); };         \
    a.a.bytes ? binary_from<V, true>(a, begin, end, one) : binary_from<V, false>(a, begin, end, one); \
  }
#include "kernels/table.inc"
#undef OPENWORK_BINARY

}  // namespace openwork::ops
