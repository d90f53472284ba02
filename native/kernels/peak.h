// What a core does at most, for the benchmarks to hold the kernels against: products of registers alone, and reads of memory
// alone. Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/peak_args.h"
#include "kernels/types.h"

namespace openwork::ops {

// Factors that never change would let the compiler take a part of each product out of the loop, and make one sum of two. So
// the weights are new ones, as it sees them, wherever a tile has new ones. The activations stay: what a kernel does to them once
// for several strips of weights is no part of the limit.
template <class V, Type type>
void peak_of(const PeakArgs& a, int64_t turns) {
  using E = Element<V, type>;
  // Independent sums: enough that none waits for its own latency, few enough that each keeps its registers. A tile of the
  // dense product has as many, or more; the products of floats wait longer, and BF16's need registers of their own.
  constexpr int tile = V::kMaxRows * V::kStrips;
  constexpr int sums = tile > 12 ? 12 : type == Type::i8 ? tile : type == Type::f32 ? 6 : 4;
  static_assert(kPeakDots % sums == 0 && kPeakDots % V::kStrips == 0);
  typename E::Vector acc[sums];
#pragma GCC unroll 16
  for (int i = 0; i < sums; ++i) acc[i] = E::zero();
  const auto x = V::window4(a.factors);
  auto w = V::load_bytes(a.factors + 64);
  for (int64_t turn = 0; turn < turns; ++turn) {
#pragma GCC unroll 24
    for (int i = 0; i < kPeakDots; ++i) {
      if (i % V::kStrips == 0) V::hide(w);
      acc[i % sums] = E::dot(acc[i % sums], x, w);
      V::hide(acc[i % sums]);
    }
  }
#pragma GCC unroll 16
  for (int i = 1; i < sums; ++i) acc[0] = E::add(acc[0], acc[i]);
  E::store(static_cast<typename E::Sum*>(a.sum), acc[0]);
}

template <class V>
void peak(const PeakArgs& a, int64_t begin, int64_t end) {
  switch (a.type) {
    case Type::i8: return peak_of<V, Type::i8>(a, end - begin);
    case Type::bf16: return peak_of<V, Type::bf16>(a, end - begin);
    case Type::f32: return peak_of<V, Type::f32>(a, end - begin);
  }
}

template <class V>
void read_memory(const ReadArgs& a, int64_t begin, int64_t end) {
  for (int64_t pass = begin; pass < end; ++pass)
    for (int64_t at = 0; at < a.bytes; at += kReadStep)
#pragma GCC unroll 8
      for (int64_t i = 0; i < kReadStep; i += 64) {
        auto line = V::load_bytes(a.data + at + i);
        V::hide(line);
      }
}

}  // namespace openwork::ops
