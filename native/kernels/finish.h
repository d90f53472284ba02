// What is done to the sums of a tile before they are stored: docs/arithmetic.md, "Linear, INT8". Included only by the
// instruction sets' own translation units: everything here is a template over V.
#pragma once

#include "kernels/gemm.h"

namespace openwork {

// A tile's sums, INT32 or binary32: row r, channel c at sums[r * stride + c], whole strips.
template <class Sum>
struct Sums {
  const Sum* at;
  int64_t stride;
};

// The part of the output that they are: rows and channels of y, the first channel a multiple of 16.
struct Part {
  int64_t row;
  int rows;
  int64_t channel, channels;
};

template <class V>
[[gnu::always_inline]] inline typename V::F32 load_sum(const int32_t* p) {
  return V::to_f32(V::load_i32(p));
}
template <class V>
[[gnu::always_inline]] inline typename V::F32 load_sum(const float* p) {
  return V::load(p);
}

// The epilogue reads the tile's sums from a buffer in L1: that costs a store and a load a vector, against k / 4 products,
// and keeps one copy of it for all tiles.
template <class V, class Sum, Activation activation, bool quantized, bool residual>
struct Finish {
  static constexpr int kStrips = V::kStrips;
  static constexpr int kGroup = kStrips * kStripLanes;

  template <int n>
  [[gnu::always_inline]] static void activate(typename V::F32 (&v)[n]) {
    if constexpr (activation == Activation::gelu) gelu_each<V>(v);
    if constexpr (activation == Activation::relu)
      for (auto& one : v) one = relu<V>(one);
  }

  template <bool whole>
  [[gnu::always_inline]] static void store(const GemmArgs& a, typename V::F32 v, typename V::F32 inverse, int64_t row, int64_t channel) {
    const int lanes = static_cast<int>(a.n - channel);
    if constexpr (residual) {
      const float* r = a.residual + row * a.residual_stride + channel;
      v = V::add(v, whole ? V::load(r) : V::load_part(r, lanes));
    }
    const int64_t at = row * a.y_stride + channel;
    if constexpr (quantized) {
      auto* y = static_cast<uint8_t*>(a.y) + at;
      const auto q = quantize<V>(v, inverse, a.epilogue.y_zero_point);
      whole ? V::store_u8(y, q) : V::store_u8_part(y, q, lanes);
    } else {
      auto* y = static_cast<float*>(a.y) + at;
      whole ? V::store(y, v) : V::store_part(y, v, lanes);
    }
  }

  template <bool whole>
  [[gnu::always_inline]] static void strip(const GemmArgs& a, const Sum* sums, int64_t sums_stride, int64_t row, int rows, int64_t channel) {
    const auto scale = V::load(a.epilogue.scale + channel), bias = V::load(a.epilogue.bias + channel);
    const auto inverse = quantized ? V::load(a.epilogue.inverse_scale + channel) : V::zero();
    for (int r = 0; r < rows; ++r, sums += sums_stride) {
      typename V::F32 v[1] = {V::fma(load_sum<V>(sums), scale, bias)};
      activate(v);
      store<whole>(a, v[0], inverse, row + r, channel);
    }
  }

  // Quantized rows of a whole group, two at a time: their vectors are packed to bytes together, and the activation works on
  // all of them at once. Returns the number of rows done.
  [[gnu::always_inline]] static int pairs(const GemmArgs& a, const Sum* sums, int64_t sums_stride, int64_t row, int rows, int64_t channel) {
    typename V::F32 scale[kStrips], bias[kStrips], inverse[kStrips];
#pragma GCC unroll 4
    for (int s = 0; s < kStrips; ++s) {
      scale[s] = V::load(a.epilogue.scale + channel + s * kStripLanes);
      bias[s] = V::load(a.epilogue.bias + channel + s * kStripLanes);
      inverse[s] = V::load(a.epilogue.inverse_scale + channel + s * kStripLanes);
    }
    // Read before the loop: the bytes it stores may be anything to the compiler, the arguments included.
    const int64_t stride = a.y_stride, residual_stride = a.residual_stride;
    const int32_t zero_point = a.epilogue.y_zero_point;
    const float* added = residual ? a.residual + row * residual_stride + channel : nullptr;
    auto* y = static_cast<uint8_t*>(a.y) + row * stride + channel;
    int r = 0;
    for (; r + 2 <= rows; r += 2, y += 2 * stride, sums += 2 * sums_stride) {
      typename V::F32 v[2 * kStrips];
      typename V::I32 q[2][kStrips];
#pragma GCC unroll 8
      for (int i = 0; i < 2 * kStrips; ++i)
        v[i] = V::fma(load_sum<V>(sums + i / kStrips * sums_stride + i % kStrips * kStripLanes), scale[i % kStrips], bias[i % kStrips]);
      activate(v);
#pragma GCC unroll 8
      for (int i = 0; i < 2 * kStrips; ++i) {
        if constexpr (residual)
          v[i] = V::add(v[i], V::load(added + (r + i / kStrips) * residual_stride + i % kStrips * kStripLanes));
        q[i / kStrips][i % kStrips] = quantize_high<V>(v[i], inverse[i % kStrips], zero_point);
      }
      V::store_u8_rows(y, stride, q, zero_point);
    }
    return r;
  }

  // Float rows of a whole group: all strips of a row in one turn, so that the CPU meets the end of one loop, not of several.
  [[gnu::always_inline]] static int floats(const GemmArgs& a, const Sum* sums, int64_t sums_stride, int64_t row, int rows, int64_t channel) {
    typename V::F32 scale[kStrips], bias[kStrips];
#pragma GCC unroll 4
    for (int s = 0; s < kStrips; ++s) {
      scale[s] = V::load(a.epilogue.scale + channel + s * kStripLanes);
      bias[s] = V::load(a.epilogue.bias + channel + s * kStripLanes);
    }
    const int64_t stride = a.y_stride, residual_stride = a.residual_stride;
    const float* added = residual ? a.residual + row * residual_stride + channel : nullptr;
    auto* y = static_cast<float*>(a.y) + row * stride + channel;
    for (int r = 0; r < rows; ++r, y += stride, added += residual ? residual_stride : 0, sums += sums_stride) {
      typename V::F32 v[kStrips];
#pragma GCC unroll 4
      for (int s = 0; s < kStrips; ++s) v[s] = V::fma(load_sum<V>(sums + s * kStripLanes), scale[s], bias[s]);
      activate(v);
#pragma GCC unroll 4
      for (int s = 0; s < kStrips; ++s)
        V::store(y + s * kStripLanes, residual ? V::add(v[s], V::load(added + s * kStripLanes)) : v[s]);
    }
    return rows;
  }

  // kGroup channels at most, beginning at a multiple of 16.
  [[gnu::always_inline]] static void columns(const GemmArgs& a, const Sum* sums, int64_t stride, int64_t row, int rows, int64_t channel) {
    if (a.n - channel >= kGroup) {
      const int done = quantized ? pairs(a, sums, stride, row, rows, channel) : floats(a, sums, stride, row, rows, channel);
      if (done == rows) return;
      sums += done * stride, row += done, rows -= done;
    }
    for (int s = 0; s < kStrips; ++s, sums += kStripLanes, channel += kStripLanes) {
      if (a.n - channel >= kStripLanes)
        strip<true>(a, sums, stride, row, rows, channel);
      else if (a.n > channel)
        strip<false>(a, sums, stride, row, rows, channel);
    }
  }

  static void run(const GemmArgs& a, const Sums<Sum>& sums, const Part& part) {
    for (int64_t c = 0; c < part.channels; c += kGroup) columns(a, sums.at + c, sums.stride, part.row, part.rows, part.channel + c);
  }
};

template <class Sum>
using FinishFn = void (*)(const GemmArgs&, const Sums<Sum>&, const Part&);

template <class V, class Sum, Activation activation>
FinishFn<Sum> choose_finish(const GemmArgs& a) {
  if (a.epilogue.quantized)
    return a.residual ? Finish<V, Sum, activation, true, true>::run : Finish<V, Sum, activation, true, false>::run;
  return a.residual ? Finish<V, Sum, activation, false, true>::run : Finish<V, Sum, activation, false, false>::run;
}

template <class V, class Sum>
FinishFn<Sum> choose_finish(const GemmArgs& a) {
  switch (a.epilogue.activation) {
    case Activation::relu: return choose_finish<V, Sum, Activation::relu>(a);
    case Activation::gelu: return choose_finish<V, Sum, Activation::gelu>(a);
    case Activation::none: break;
  }
  return choose_finish<V, Sum, Activation::none>(a);
}

}  // namespace openwork
