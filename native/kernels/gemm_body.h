// The one body of every INT8 product, dense and windowed-sparse, over a vocabulary V of simd/. Included only by the
// instruction sets' own translation units: everything here is a template over V, so no two of them share a symbol.
#pragma once

#include "kernels/gemm.h"

namespace openwork {

template <class V, Form form>
struct FormBody;

template <class V>
struct FormBody<V, Form::dense> {
  static constexpr bool kShuffled = false;
  static constexpr int kWindow = 4;
  [[gnu::always_inline]] static auto window(const uint8_t* p) { return V::window4(p); }
};

template <class V>
struct FormBody<V, Form::window8> {
  static constexpr bool kShuffled = true;
  static constexpr int kWindow = 8;
  [[gnu::always_inline]] static auto window(const uint8_t* p) { return V::window8(p); }
  // The 8 bytes fill each 16-byte lane twice, so that the in-lane shuffle reaches them.
  [[gnu::always_inline]] static auto pick(typename V::Bytes w, typename V::Bytes i) { return V::shuffle16(w, i); }
};

template <class V>
struct FormBody<V, Form::window16> {
  static constexpr bool kShuffled = true;
  static constexpr int kWindow = 16;
  [[gnu::always_inline]] static auto window(const uint8_t* p) { return V::window16(p); }
  [[gnu::always_inline]] static auto pick(typename V::Bytes w, typename V::Bytes i) { return V::shuffle16(w, i); }
};

template <class V>
struct FormBody<V, Form::window64> {
  static constexpr bool kShuffled = true;
  static constexpr int kWindow = 64;
  [[gnu::always_inline]] static auto window(const uint8_t* p) { return V::window64(p); }
  [[gnu::always_inline]] static auto pick(typename V::Bytes w, typename V::Bytes i) { return V::shuffle64(w, i); }
};

// Addresses of the rows of a tile with few registers: one base for every four rows, and the stride as an index that x86
// scales by 1 and 2 (the third by a second index register).
template <int rows>
struct RowPointers {
  static constexpr int kBases = (rows + 3) / 4;
  const uint8_t* base[kBases];
  int64_t stride, stride3;

  [[gnu::always_inline]] RowPointers(const uint8_t* x, int64_t stride_) : stride(stride_), stride3(3 * stride_) {
    for (int i = 0; i < kBases; ++i) base[i] = x + 4 * i * stride_;
  }
  [[gnu::always_inline]] const uint8_t* row(int r) const {
    const uint8_t* p = base[r / 4];
    return r % 4 == 0 ? p : r % 4 == 1 ? p + stride : r % 4 == 2 ? p + 2 * stride : p + stride3;
  }
  [[gnu::always_inline]] void advance(int bytes) {
    for (int i = 0; i < kBases; ++i) base[i] += bytes;
  }
};

template <class V, Form form, int rows>
struct Tile {
  using Body = FormBody<V, form>;
  static constexpr int kStrips = V::kStrips;
  using Sums = typename V::I32[rows][kStrips];

  // One step: the weights (and indices) of every strip stay in registers for all rows.
  [[gnu::always_inline]] static const uint8_t* step(const RowPointers<rows>& x, const uint8_t* w, const uint8_t*& ahead,
                                                    Sums& acc) {
    // Without this the compiler keeps the windows of all rows in registers over the steps and spills the accumulators.
    asm volatile("" ::: "memory");
    __builtin_prefetch(ahead, 0, 2);
    ahead += 64;
    typename V::Bytes index[kStrips], weight[kStrips];
#pragma GCC unroll 4
    for (int s = 0; s < kStrips; ++s) {
      if constexpr (Body::kShuffled) index[s] = V::load_bytes(w + 64 * s);
      weight[s] = V::load_bytes(w + 64 * (s + (Body::kShuffled ? kStrips : 0)));
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const auto window = Body::window(x.row(r));
#pragma GCC unroll 4
      for (int s = 0; s < kStrips; ++s) {
        if constexpr (Body::kShuffled)
          acc[r][s] = V::dot(acc[r][s], Body::pick(window, index[s]), weight[s]);
        else
          acc[r][s] = V::dot(acc[r][s], window, weight[s]);
      }
    }
    return w + 64 * kStrips * (Body::kShuffled ? 2 : 1);
  }

  // Four windows of one step each in a turn: the fewer branches let the CPU foresee the end of the loop, which is worth 5%
  // at k = 384. Longer steps, and the dense form, gain nothing from it.
  static constexpr int kUnroll = 4;
  [[gnu::always_inline]] static const uint8_t* unrolled(RowPointers<rows>& x, const uint8_t* w, const uint8_t*& ahead, Sums& acc,
                                                        int64_t& left) {
    for (; left >= kUnroll; left -= kUnroll) {
#pragma GCC unroll 4
      for (int i = 0; i < kUnroll; ++i) {
        w = step(x, w, ahead, acc);
        x.advance(Body::kWindow);
      }
    }
    return w;
  }

  // The sums start from the zero point's correction, `offset` of the group's channels.
  static void run(const uint8_t* x, int64_t stride, const PackedView& weights, int64_t group, const uint8_t* ahead,
                  const int32_t* offset, int32_t* sums) {
    Sums acc;
#pragma GCC unroll 4
    for (int s = 0; s < kStrips; ++s) {
      const auto start = V::load_i32(offset + s * kStripLanes);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) acc[r][s] = start;
    }
    const uint8_t* w = weights.data + group * weights.group_bytes;
    RowPointers<rows> pointers(x, stride);
    int64_t left = weights.windows;
    if constexpr (Body::kWindow == 8)
      if (weights.steps == 1) w = unrolled(pointers, w, ahead, acc, left);
    for (; left > 0; --left) {
      for (int64_t j = 0; j < weights.steps; ++j) w = step(pointers, w, ahead, acc);
      pointers.advance(Body::kWindow);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int s = 0; s < kStrips; ++s) V::store_i32(sums + (r * kStrips + s) * kStripLanes, acc[r][s]);
  }
};

// The epilogue reads the tile's sums from a buffer in L1: that costs a store and a load a vector, against k / 4 products,
// and keeps one copy of it for all tiles.
template <class V, Activation activation, bool quantized, bool residual>
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
  [[gnu::always_inline]] static void strip(const GemmArgs& a, const int32_t* sums, int64_t row, int rows, int64_t channel) {
    const auto scale = V::load(a.epilogue.scale + channel), bias = V::load(a.epilogue.bias + channel);
    const auto inverse = quantized ? V::load(a.epilogue.inverse_scale + channel) : V::zero();
    for (int r = 0; r < rows; ++r, sums += kGroup) {
      typename V::F32 v[1] = {V::fma(V::to_f32(V::load_i32(sums)), scale, bias)};
      activate(v);
      store<whole>(a, v[0], inverse, row + r, channel);
    }
  }

  // Quantized rows of a whole group, two at a time: their vectors are packed to bytes together, and the activation works on
  // all of them at once. Returns the number of rows done.
  [[gnu::always_inline]] static int pairs(const GemmArgs& a, const int32_t* sums, int64_t row, int rows, int64_t channel) {
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
    for (; r + 2 <= rows; r += 2, y += 2 * stride, sums += 2 * kGroup) {
      typename V::F32 v[2 * kStrips];
      typename V::I32 q[2][kStrips];
#pragma GCC unroll 8
      for (int i = 0; i < 2 * kStrips; ++i)
        v[i] = V::fma(V::to_f32(V::load_i32(sums + i * kStripLanes)), scale[i % kStrips], bias[i % kStrips]);
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
  [[gnu::always_inline]] static int floats(const GemmArgs& a, const int32_t* sums, int64_t row, int rows, int64_t channel) {
    typename V::F32 scale[kStrips], bias[kStrips];
#pragma GCC unroll 4
    for (int s = 0; s < kStrips; ++s) {
      scale[s] = V::load(a.epilogue.scale + channel + s * kStripLanes);
      bias[s] = V::load(a.epilogue.bias + channel + s * kStripLanes);
    }
    const int64_t stride = a.y_stride, residual_stride = a.residual_stride;
    const float* added = residual ? a.residual + row * residual_stride + channel : nullptr;
    auto* y = static_cast<float*>(a.y) + row * stride + channel;
    for (int r = 0; r < rows; ++r, y += stride, added += residual ? residual_stride : 0, sums += kGroup) {
      typename V::F32 v[kStrips];
#pragma GCC unroll 4
      for (int s = 0; s < kStrips; ++s) v[s] = V::fma(V::to_f32(V::load_i32(sums + s * kStripLanes)), scale[s], bias[s]);
      activate(v);
#pragma GCC unroll 4
      for (int s = 0; s < kStrips; ++s)
        V::store(y + s * kStripLanes, residual ? V::add(v[s], V::load(added + s * kStripLanes)) : v[s]);
    }
    return rows;
  }

  static void run(const GemmArgs& a, const int32_t* sums, int64_t row, int rows, int64_t group) {
    if (a.n - group * kGroup >= kGroup) {
      const int done = quantized ? pairs(a, sums, row, rows, group * kGroup) : floats(a, sums, row, rows, group * kGroup);
      if (done == rows) return;
      sums += done * kGroup, row += done, rows -= done;
    }
    for (int s = 0; s < kStrips; ++s, sums += kStripLanes) {
      const int64_t channel = group * kGroup + s * kStripLanes;
      if (a.n - channel >= kStripLanes)
        strip<true>(a, sums, row, rows, channel);
      else if (a.n > channel)
        strip<false>(a, sums, row, rows, channel);
    }
  }
};

using FinishFn = void (*)(const GemmArgs&, const int32_t* sums, int64_t row, int rows, int64_t group);

template <class V, Activation activation>
FinishFn choose_finish(const GemmArgs& a) {
  if (a.epilogue.quantized)
    return a.residual ? Finish<V, activation, true, true>::run : Finish<V, activation, true, false>::run;
  return a.residual ? Finish<V, activation, false, true>::run : Finish<V, activation, false, false>::run;
}

template <class V>
FinishFn choose_finish(const GemmArgs& a) {
  switch (a.epilogue.activation) {
    case Activation::relu: return choose_finish<V, Activation::relu>(a);
    case Activation::gelu: return choose_finish<V, Activation::gelu>(a);
    case Activation::none: break;
  }
  return choose_finish<V, Activation::none>(a);
}

using TileFn = void (*)(const uint8_t* x, int64_t stride, const PackedView&, int64_t group, const uint8_t* ahead,
                        const int32_t* offset, int32_t* sums);

// Tiles of 1 to `rows` rows, so that any number of rows is cut into tiles of nearly equal height.
template <class V, Form form, int rows>
struct Tiles : Tiles<V, form, rows - 1> {
  TileFn tile = Tile<V, form, rows>::run;
  TileFn find(int n) const { return n == rows ? tile : Tiles<V, form, rows - 1>::find(n); }
};
template <class V, Form form>
struct Tiles<V, form, 0> {
  TileFn find(int) const { return nullptr; }
};

// Where a tile asks for a quarter of the next group's weights, so that they come from L3 while this group's are at work: 6 to
// 13% of MiniLM. Asking for all of it at once, before the tile, fills the miss buffers and gains nothing at k = 1536.
template <class V>
[[gnu::always_inline]] inline const uint8_t* weights_ahead(const PackedView& w, int64_t group, int64_t tile) {
  const int64_t next = group + 1 < w.groups ? group + 1 : group;
  return w.data + next * w.group_bytes + w.group_bytes / 4 * (tile % 4);
}

template <class V, Form form>
void gemm(const GemmArgs& a, const Block& block) {
  constexpr int max_rows = FormBody<V, form>::kShuffled ? V::kMaxRowsSparse : V::kMaxRows;
  static constexpr Tiles<V, form, max_rows> tiles;
  alignas(64) int32_t sums[max_rows * V::kStrips * kStripLanes];
  const FinishFn finish = choose_finish<V>(a);
  const int64_t rows = block.row_end - block.row_begin;
  const int64_t count = (rows + max_rows - 1) / max_rows;
  for (int64_t group = block.group_begin; group < block.group_end; ++group) {
    const int32_t* offset = a.epilogue.offset + group * V::kStrips * kStripLanes;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = block.row_begin + rows * i / count;
      const int height = static_cast<int>(block.row_begin + rows * (i + 1) / count - begin);
      tiles.find(height)(a.x + begin * a.x_stride, a.x_stride, a.weights, group, weights_ahead<V>(a.weights, group, i), offset,
                         sums);
      finish(a, sums, begin, height, group);
    }
  }
}

}  // namespace openwork
