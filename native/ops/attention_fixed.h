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
      : head(h), a(h.a), at(a.scratch, a.length, a.keys(), a.size), pairs(pairs_of(a.size)) {
    if (a.causal || a.bias.data)
      keep_rows<true>();
    else if (a.mask || a.past > 0)
      keep_rows<false>();
    else
      keys = a.fresh;
  }

  // Where the kept keys and values lie; numbered: which they are, and how many of them each query sees.
  template <bool numbered>
  void keep_rows() {
    int64_t query = 0;
    for (int64_t j = 0; j < a.keys(); ++j) {
      if constexpr (numbered)
        for (; query < a.length && a.seen(query) <= j; ++query) at.limit[query] = static_cast<float>(keys);
      if (!head.kept(j)) continue;
      if constexpr (numbered) at.number[keys] = j;
      at.key_row[keys] = head.keys[j];
      at.value_row[keys++] = head.values[j];
    }
    if constexpr (numbered)
      for (; query < strips_of(a.length) * kStripLanes; ++query) at.limit[query] = static_cast<float>(keys);
  }

  // Packs queries, keys and values; whether this head's numbers allow fixed point.
  bool prepare() {
    if (!fixed_point_allows(keys, a.size, a.scale)) return false;
    const bool apart = a.mask || a.past > 0 || a.causal || a.bias.data;
    const Rows q{head.queries(), a.q_stride, a.length, a.size};
    const Rows k{head.keys.fresh, a.stride, keys, a.size, apart ? at.key_row : nullptr};
    const Rows v{head.values.fresh, a.stride, keys, a.size, apart ? at.value_row : nullptr};
    return keys == 0 || (pack_rows<V>(k, at.room, at.key, at.key_unit) && pack_rows<V>(q, at.room, at.query, at.query_unit) &&
                         pack_columns<V>(v, at.score, at.value, at.value_unit));
  }

  // Infinity in the lanes of the queries of a strip that see a key, else minus infinity.
  [[gnu::always_inline]] F32 shown(int64_t strip, int64_t key) const {
    const F32 beyond = V::sub(V::load(at.limit + strip * kStripLanes), V::set1(static_cast<float>(key) + 0.5f));
    return V::mul(beyond, V::set1(__builtin_inff()));
  }

  // u of `width` strips of queries, [strip][keys][16], of the keys from `begin`, a multiple of kFloatRows, to `end`: -inf where
  // `hidden` says that a query may not see one.
  template <int width, bool hidden>
  [[gnu::always_inline]] void scores(int64_t strip, int64_t begin, int64_t end, F32 (&top)[width]) const {
    const int32_t* query = at.query + strip * pairs * kStripLanes;
    cover<V::kFloatRows>(begin, end, [&]<int rows>(int64_t key) {
      PairTile<V, rows, width> tile;
      tile.multiply(at.key + key / kStripLanes * pairs * kStripLanes + key % kStripLanes, query, pairs * kStripLanes, pairs);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const F32 unit = V::set1(at.key_unit[key + r]);
#pragma GCC unroll 4
        for (int s = 0; s < width; ++s) {
          F32 u = V::mul(V::to_f32(tile.sum[r][s]), unit);
          if constexpr (hidden) u = V::min(u, shown(strip + s, key + r));
          top[s] = V::max(top[s], u);
          V::store(at.score + ((s * keys) + key + r) * kStripLanes, u);
        }
      }
    });
  }

  // Turns `n` keys of u into pairs of p, the last one with 0 where n is odd. infinite: u may be -inf.
  template <int n, bool infinite>
  [[gnu::always_inline]] void weights(const float* u, int32_t* to, F32 top, F32 factor, I32& z) const {
    F32 t[n];
    I32 p[n + n % 2];
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) {
      t[i] = V::mul(V::sub(V::load(u + i * kStripLanes), top), factor);
      if constexpr (infinite) t[i] = V::max(t[i], V::set1(kFixedLow));
    }
    if constexpr (n % 2) p[n] = V::zero_i32();
    fixed_exp2<V, n>(t, p);
#pragma GCC unroll 8
    for (int i = 0; i < n; i += 2) {
      const I32 pair = V::pair(p[i], p[i + 1]);
      z = V::dot_pairs(z, pair, V::set1_i32(0x00010001));
      V::store_i32(to + i / 2 * kStripLanes, pair);
    }
  }

  // Turns u of `count` keys and one strip of queries into pairs of p, which take its place from the front, and gives 1 / z; 1 where
  // no key weighs anything.
  template <bool infinite>
  [[gnu::always_inline]] F32 softmax(float* u, int64_t count, F32 top, F32 factor) const {
    int32_t* const to = reinterpret_cast<int32_t*>(u);
    I32 z = V::zero_i32();
    cover<2 * V::kFloatStrips>(0, count, [&]<int n>(int64_t j) {
      weights<n, infinite>(u + j * kStripLanes, to + j / 2 * kStripLanes, top, factor, z);
    });
    if constexpr (infinite) z = V::max(z, V::set1_i32(1));
    return V::div(V::set1(1.0f), V::to_f32(z));
  }

  // Blocks of keys are exact; their sums are added in binary32.
  template <int rows, int width>
  [[gnu::always_inline]] void weigh(const int32_t* p, int64_t count, const float* inverse, int64_t query, int64_t strip) const {
    const int64_t stride = pairs_of(keys) * kStripLanes;
    const int32_t* value = at.value + strip * stride;
    F32 total[rows][width];
    for (auto& row : total)
      for (auto& t : row) t = V::zero();
    for (int64_t i = 0; i < count; i += kFixedBlock / 2) {
      const int64_t left = count - i < kFixedBlock / 2 ? count - i : kFixedBlock / 2;
      PairTile<V, rows, width> tile;
      tile.multiply(p + i * kStripLanes, value + i * kStripLanes, stride, left);
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

  // One strip of queries, of which the first `rows_left` exist, over `count` pairs of keys.
  void weigh(const int32_t* p, int64_t count, const float* inverse, int64_t query, int64_t rows_left) const {
    cover<V::kFloatRows>(0, rows_left, [&]<int rows>(int64_t r) {
      cover<V::kFloatStrips>(0, strips_of(a.size),
                             [&]<int width>(int64_t strip) { weigh<rows, width>(p + r, count, inverse + r, query + r, strip); });
    });
  }

  // The bias of the queries of a strip, in whose lanes they are, for up to 16 kept keys from `key` on.
  void load_bias(int64_t strip, int64_t key, int64_t count, F32 (&block)[kStripLanes]) const {
    for (int i = 0; i < kStripLanes; ++i) {
      const int64_t query = strip * kStripLanes + i;
      const float* row = head.bias(query < a.length ? query : a.length - 1);
      if (keys == a.keys()) {
        block[i] = load_lanes<V>(row + key, count);
      } else {
        alignas(64) float picked[kStripLanes] = {};
        for (int64_t j = 0; j < count && j < kStripLanes; ++j) picked[j] = row[at.number[key + j]];
        block[i] = V::load(picked);
      }
    }
    V::transpose(block);
  }

  // Turns u of a strip into u * scale + bias; the largest of each query.
  F32 add_bias(float* u, int64_t strip, int64_t count, F32 scale) const {
    F32 top = V::set1(-__builtin_inff());
    for (int64_t key = 0; key < count; key += kStripLanes) {
      F32 block[kStripLanes];
      load_bias(strip, key, count - key, block);
      for (int64_t j = 0; j < kStripLanes && key + j < count; ++j) {
        float* const place = u + (key + j) * kStripLanes;
        const F32 s = V::fma(V::load(place), scale, block[j]);
        top = V::max(top, s);
        V::store(place, s);
      }
    }
    return top;
  }

  // NaN in the lanes of queries for which the bias leaves nothing of the keys that they see, else 0.
  F32 nothing_left(int64_t strip, F32 top) const {
    alignas(64) float most[kStripLanes];
    V::store(most, top);
    for (int i = 0; i < kStripLanes; ++i)
      if (at.limit[strip * kStripLanes + i] == 0.0f) most[i] = 0.0f;
    return V::sub(V::load(most), V::load(most));
  }

  // Softmax and weighted sum of one strip of queries over the first `count` kept keys.
  template <bool infinite>
  [[gnu::always_inline]] void finish(float* u, int64_t strip, int64_t count, F32 top, int64_t end) const {
    const int64_t query = strip * kStripLanes;
    const F32 scale = V::mul(V::load(at.query_unit + query), V::set1(a.scale)), log2e = V::set1(kLog2e);
    alignas(64) float inverse[kStripLanes];
    if (infinite && a.bias.data) {
      top = add_bias(u, strip, count, scale);
      V::store(inverse, V::add(softmax<infinite>(u, count, top, log2e), nothing_left(strip, top)));
    } else {
      V::store(inverse, softmax<infinite>(u, count, top, V::mul(scale, log2e)));
    }
    weigh(reinterpret_cast<const int32_t*>(u), pairs_of(count), inverse, query, end - query < kStripLanes ? end - query : kStripLanes);
  }

  template <int width>
  [[gnu::always_inline]] void strips(int64_t strip, int64_t end) const {
    F32 top[width];
    for (auto& t : top) t = V::set1(-__builtin_inff());
    scores<width, false>(strip, 0, keys, top);
    for (int s = 0; s < width; ++s) finish<false>(at.score + s * keys * kStripLanes, strip + s, keys, top[s], end);
  }

  // The same where a bias is added or queries see no more than some of the first keys.
  template <int width>
  void strips_of_some(int64_t strip, int64_t end) const {
    F32 top[width];
    for (auto& t : top) t = V::set1(-__builtin_inff());
    const float* const limit = at.limit + strip * kStripLanes;
    const int64_t all = a.causal ? static_cast<int64_t>(limit[0]) / V::kFloatRows * V::kFloatRows : keys;
    const int64_t some = a.causal ? static_cast<int64_t>(limit[width * kStripLanes - 1]) : keys;
    scores<width, false>(strip, 0, all, top);
    scores<width, true>(strip, all, some, top);
    for (int s = 0; s < width; ++s) finish<true>(at.score + s * keys * kStripLanes, strip + s, some, top[s], end);
  }

  // Queries from `begin`, a multiple of 16.
  void run(int64_t begin, int64_t end) const {
    const int64_t first = begin / kStripLanes, last = strips_of(end);
    if (keys == 0)
      head.zeros(begin, end);
    else if (a.causal || a.bias.data)
      cover<V::kFloatStrips>(first, last, [&]<int width>(int64_t strip) { strips_of_some<width>(strip, end); });
    else
      cover<V::kFloatStrips>(first, last, [&]<int width>(int64_t strip) { strips<width>(strip, end); });
  }
};

}  // namespace openwork::ops
