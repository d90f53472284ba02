// How each element type is read, picked and multiplied over a vocabulary V: four bytes a lane hold four INT8, two BF16 or one
// binary32. Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/gemm.h"

namespace openwork {

template <class V, Type type>
struct Element;

template <class V>
struct Element<V, Type::i8> {
  using Sum = int32_t;
  using Vector = typename V::I32;
  // Any order of the sum is exact.
  static constexpr bool kAnyOrder = true;
  // Either factor may be the same in all lanes, for which an instruction set may have a type of its own (simd/neon.h).
  template <class X>
  [[gnu::always_inline]] static auto activations(X v) {
    return V::flip(v);
  }
  template <class X, class W>
  [[gnu::always_inline]] static Vector dot(Vector acc, X x, W w) {
    return V::dot(acc, x, w);
  }
  [[gnu::always_inline]] static Vector load(const Sum* p) { return V::load_i32(p); }
  [[gnu::always_inline]] static void store(Sum* p, Vector v) { V::store_i32(p, v); }
  [[gnu::always_inline]] static Vector zero() { return V::zero_i32(); }
  [[gnu::always_inline]] static Vector add(Vector a, Vector b) { return V::add(a, b); }
};

template <class V>
struct FloatElement {
  using Sum = float;
  using Vector = typename V::F32;
  static constexpr bool kAnyOrder = false;
  [[gnu::always_inline]] static typename V::Bytes activations(typename V::Bytes v) { return v; }
  [[gnu::always_inline]] static Vector load(const Sum* p) { return V::load(p); }
  [[gnu::always_inline]] static void store(Sum* p, Vector v) { V::store(p, v); }
  [[gnu::always_inline]] static Vector zero() { return V::zero(); }
  [[gnu::always_inline]] static Vector add(Vector a, Vector b) { return V::add(a, b); }
};

template <class V>
struct Element<V, Type::bf16> : FloatElement<V> {
  using Vector = typename V::F32;
  [[gnu::always_inline]] static Vector dot(Vector acc, typename V::Bytes x, typename V::Bytes w) { return V::dot_bf16(acc, x, w); }
};

template <class V>
struct Element<V, Type::f32> : FloatElement<V> {
  using Vector = typename V::F32;
  [[gnu::always_inline]] static Vector dot(Vector acc, typename V::Bytes x, typename V::Bytes w) {
    return V::fma(V::floats(x), V::floats(w), acc);
  }
};

}  // namespace openwork
