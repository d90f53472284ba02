// The products of each of some vectors with those before it, for each batch element: lanes are channels, and 16 sums are folded
// at once, each in the order of dot16 (docs/arithmetic.md).
#pragma once

#include "ops/byte_blocks.h"
#include "ops/table_arguments.h"

namespace openwork::ops {

// Sums of 4 by 4 vectors; as many of their columns at once as the registers hold.
inline constexpr int kPairTile = 4;

template <class V>
struct Interaction {
  using F32 = typename V::F32;
  // Registers of 16 lanes: four rows of sums and of vectors, and the vectors of the columns.
  static constexpr int kColumns = V::kFloatRows * V::kFloatStrips >= kPairTile * kPairTile ? kPairTile : 1;

  const InteractionArgs& a;

  // The vectors of a batch element; what a tile lacks at the end repeats the last one.
  const float* row(int64_t i) const { return a.rows[i < a.vectors ? i : a.vectors - 1]; }

  template <int columns>
  [[gnu::always_inline]] void sums(int64_t i, int64_t j, F32* to) const {
    const float* left[kPairTile];
    const float* right[columns];
    F32 sum[kPairTile][columns];
#pragma GCC unroll 4
    for (int r = 0; r < kPairTile; ++r) {
      left[r] = row(i + r);
#pragma GCC unroll 4
      for (auto& each : sum[r]) each = V::zero();
    }
#pragma GCC unroll 4
    for (int c = 0; c < columns; ++c) right[c] = row(j + c);
    for (int64_t k = 0; k < a.width; k += kStripLanes) {
      F32 other[columns];
#pragma GCC unroll 4
      for (int c = 0; c < columns; ++c) other[c] = load_lanes<V>(right[c] + k, a.width - k);
#pragma GCC unroll 4
      for (int r = 0; r < kPairTile; ++r) {
        const F32 own = load_lanes<V>(left[r] + k, a.width - k);
#pragma GCC unroll 4
        for (int c = 0; c < columns; ++c) sum[r][c] = V::fma(own, other[c], sum[r][c]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kPairTile; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < columns; ++c) to[r * kPairTile + c] = sum[r][c];
  }

  // Lane l of the result is the sum of the lanes of m[l].
  [[gnu::always_inline]] static F32 folded(F32 (&m)[kStripLanes]) {
    V::transpose(m);
#pragma GCC unroll 4
    for (int half = kStripLanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int l = 0; l < half; ++l) m[l] = V::add(m[l], m[l + half]);
    return m[0];
  }

  // Rows i to i + 3 of the triangle, its columns j to j + 3.
  [[gnu::always_inline]] void tile(int64_t i, int64_t j, float* triangle) const {
    F32 sum[kStripLanes];
#pragma GCC unroll 4
    for (int c = 0; c < kPairTile; c += kColumns) sums<kColumns>(i, j + c, sum + c);
    alignas(64) float product[kStripLanes];
    V::store(product, folded(sum));
    for (int64_t r = i; r < i + kPairTile && r < a.vectors; ++r)
      for (int64_t c = j; c < j + kPairTile && c < r; ++c)
        triangle[r * (r - 1) / 2 + c] = product[(r - i) * kPairTile + c - j];
  }

  void find_rows(int64_t element) const {
    const float** to = a.rows;
    for (const Vectors* part = a.x; part < a.x + a.parts; ++part)
      for (int64_t v = 0; v < part->count; ++v) *to++ = part->data + element * part->stride + v * a.width;
  }

  void store(int64_t element) const {
    const int64_t count = a.width + a.vectors * (a.vectors - 1) / 2;
    for (int64_t at = 0; at < count; at += kBlock) {
      F32 v[4];
      load_block<V>(a.made + at, kBlock, v);
      if (a.y_bytes)
        store_block<V>(static_cast<uint8_t*>(a.y) + element * a.y_stride + at, quantize_block<V>(v, a.quantizer), count - at);
      else
        store_block<V>(static_cast<float*>(a.y) + element * a.y_stride + at, v, count - at);
    }
  }

  void run(int64_t begin, int64_t end) const {
    for (int64_t element = begin; element < end; ++element) {
      find_rows(element);
      for (int64_t k = 0; k < a.width; k += kStripLanes)
        store_lanes<V>(a.made + k, load_lanes<V>(a.rows[0] + k, a.width - k), a.width - k);
      for (int64_t i = 0; i < a.vectors; i += kPairTile)
        for (int64_t j = 0; j <= i; j += kPairTile) tile(i, j, a.made + a.width);
      store(element);
    }
  }
};

template <class V>
void interaction(const InteractionArgs& a, int64_t begin, int64_t end) {
  Interaction<V>{a}.run(begin, end);
}

}  // namespace openwork::ops
