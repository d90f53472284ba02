// Attention in 16-bit fixed point with exact integer products, as docs/arithmetic.md defines it. Lanes are queries in the
// scores and in the softmax, so that nothing is reduced across a vector, and channels in the weighted sum.
#pragma once

#include "ops/attention_head.h"
#include "ops/fixed_point.h"
#include "ops/pair_tile.h"

namespace openwork::ops {

template <class V>
struct FixedAttention {
  using F32 = typename V::F32;
  using I32 = typename V::I32;
  static_assert(V::kFloatStrips <= kAttentionStrips);

  const AttentionHead<V>& head;
  const AttentionArgs& a;
  FixedScratch at;
  int64_t keys = 0;  // the kept ones, side by side
  int64_t pairs;     // of channels

  explicit FixedAttention(const AttentionHead<V>& h)
      : head(h), a(h.a), at(a.scratch, a.length, a.size), pairs(pairs_of(a.size)) {
    for (int64_t j = 0; j < a.length; ++j)
      if (head.kept(j)) at.row[keys++] = j * a.stride;
  }

  // Packs queries, keys and values; whether this head's numbers allow fixed point.
  bool prepare() {
    if (!fixed_point_allows(keys, a.size, a.scale)) return false;
    const int64_t first = head.offset();
    const Rows q{a.q + first, a.stride, a.length, a.size};
    const Rows k{a.k + first, a.stride, keys, a.size, at.row}, v{a.v + first, a.stride, keys, a.size, at.row};
    return keys == 0 || (pack_rows<V>(k, at.room, at.key, at.key_unit) && pack_rows<V>(q, at.room, at.query, at.query_unit) &&
                         pack_columns<V>(v, at.score, at.value, at.value_unit));
  }

  // u of `width` strips of queries: [strip][keys][16].
  template <int width>
  [[gnu::always_inline]] void scores(int64_t strip, F32 (&top)[width]) const {
    const int32_t* query = at.query + strip * pairs * kStripLanes;
    for (auto& t : top) t = V::set1(-__builtin_inff());
    cover<V::kFloatRows>(0, keys, [&]<int rows>(int64_t key) {
      PairTile<V, rows, width> tile;
      tile.multiply(at.key + key / kStripLanes * pairs * kStripLanes + key % kStripLanes, query, pairs * kStripLanes, pairs);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const F32 unit = V::set1(at.key_unit[key + r]);
#pragma GCC unroll 4
        for (int s = 0; s < width; ++s) {
          const F32 u = V::mul(V::to_f32(tile.sum[r][s]), unit);
          top[s] = V::max(top[s], u);
          V::store(at.score + ((s * keys) + key + r) * kStripLanes, u);
        }
      }
    });
  }

  // Turns `n` keys of u into pairs of p, the last one with 0 where n is odd.
  template <int n>
  [[gnu::always_inline]] void weights(const float* u, int32_t* to, F32 top, F32 factor, I32& z) const {
    F32 t[n];
    I32 p[n + n % 2];
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) t[i] = V::mul(V::sub(V::load(u + i * kStripLanes), top), factor);
    if constexpr (n % 2) p[n] = V::zero_i32();
    fixed_exp2<V, n>(t, p);
#pragma GCC unroll 8
    for (int i = 0; i < n; i += 2) {
      const I32 pair = V::pair(p[i], p[i + 1]);
      z = V::dot_pairs(z, pair, V::set1_i32(0x00010001));
      V::store_i32(to + i / 2 * kStripLanes, pair);
    }
  }

  // Turns u of one strip of queries into pairs of p, which take its place from the front, and stores 1 / z.
  [[gnu::always_inline]] void softmax(float* u, F32 top, F32 factor, float* inverse) const {
    int32_t* const to = reinterpret_cast<int32_t*>(u);
    I32 z = V::zero_i32();
    cover<2 * V::kFloatStrips>(0, keys, [&]<int n>(int64_t j) { weights<n>(u + j * kStripLanes, to + j / 2 * kStripLanes, top, factor, z); });
    V::store(inverse, V::div(V::set1(1.0f), V::to_f32(z)));
  }

  // Blocks of keys are exact; their sums are added in binary32.
  template <int rows, int width>
  [[gnu::always_inline]] void weigh(const int32_t* p, const float* inverse, int64_t query, int64_t strip) const {
    const int64_t count = pairs_of(keys);
    const int32_t* value = at.value + strip * count * kStripLanes;
    F32 total[rows][width];
    for (auto& row : total)
      for (auto& t : row) t = V::zero();
    for (int64_t i = 0; i < count; i += kFixedBlock / 2) {
      const int64_t left = count - i < kFixedBlock / 2 ? count - i : kFixedBlock / 2;
      PairTile<V, rows, width> tile;
      tile.multiply(p + i * kStripLanes, value + i * kStripLanes, count * kStripLanes, left);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int s = 0; s < width; ++s) total[r][s] = V::add(total[r][s], V::to_f32(tile.sum[r][s]));
    }
    for (int s = 0; s < width; ++s) {
      const int64_t d = (strip + s) * kStripLanes;
      const F32 unit = V::load(at.value_unit + d);
      for (int r = 0; r < rows; ++r) head.store(V::mul(V::mul(total[r][s], unit), V::set1(inverse[r])), query + r, d);
    }
  }

  // One strip of queries, of which the first `count` exist.
  void weigh(const int32_t* p, const float* inverse, int64_t query, int64_t count) const {
    cover<V::kFloatRows>(0, count, [&]<int rows>(int64_t r) {
      cover<V::kFloatStrips>(0, strips_of(a.size),
                             [&]<int width>(int64_t strip) { weigh<rows, width>(p + r, inverse + r, query + r, strip); });
    });
  }

  template <int width>
  void strips(int64_t strip, int64_t end) const {
    F32 top[width];
    scores<width>(strip, top);
    const F32 scale = V::set1(a.scale), log2e = V::set1(kLog2e);
    for (int s = 0; s < width; ++s) {
      const int64_t query = (strip + s) * kStripLanes;
      float* u = at.score + s * keys * kStripLanes;
      alignas(64) float inverse[kStripLanes];
      softmax(u, top[s], V::mul(V::mul(V::load(at.query_unit + query), scale), log2e), inverse);
      weigh(reinterpret_cast<const int32_t*>(u), inverse, query, end - query < kStripLanes ? end - query : kStripLanes);
    }
  }

  // Queries from `begin`, a multiple of 16.
  void run(int64_t begin, int64_t end) const {
    if (keys == 0)
      head.zeros(begin, end);
    else
      cover<V::kFloatStrips>(begin / kStripLanes, strips_of(end), [&]<int width>(int64_t strip) { strips<width>(strip, end); });
  }
};

}  // namespace openwork::ops
