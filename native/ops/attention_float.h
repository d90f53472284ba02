// The general form of attention, in binary32: scores, softmax and the weighted sum of the values for a few query rows at
// once, so that the scores never leave L1.
#pragma once

#include "ops/attention_head.h"
#include "ops/streamed_rows.h"

namespace openwork::ops {

template <class V>
[[gnu::always_inline]] inline typename V::F32 round_trip(typename V::F32 v, const RoundTrip& r) {
  const auto q = V::to_f32(openwork::quantize<V>(v, r.quantizer));
  return V::mul(V::sub(q, V::set1(static_cast<float>(r.quantizer.zero_point))), V::set1(r.scale));
}

// packed: keys and values are laid out anew, for many queries; else they are read once where they lie, for kFewQueries.
template <class V, bool packed>
struct FloatAttention {
  using F32 = typename V::F32;
  static constexpr int kRows = packed || V::kFloatRows < kFewQueries ? V::kFloatRows : kFewQueries;
  static_assert(V::kFloatRows <= kAttentionRows && kFewQueries <= kAttentionRows);

  const AttentionHead<V>& head;
  const AttentionArgs& a;
  int64_t first = 0;  // the first kept key
  int64_t keys;       // up to the last kept one: what follows adds nothing
  int64_t padded;     // to whole strips of 16 keys
  float *key, *value, *score, *dropped, *keep;

  explicit FloatAttention(const AttentionHead<V>& h) : head(h), a(h.a) {
    for (keys = a.keys(); keys > 0 && !head.kept(keys - 1); --keys) {}
    while (first < keys && !head.kept(first)) ++first;
    padded = strips_of(keys) * kStripLanes;
    key = a.scratch;
    value = key + (packed ? padded * a.size : 0);
    score = value + (packed ? strips_of(a.size) * kStripLanes * keys : 0);
    dropped = score + kRows * padded;
    keep = dropped + padded;
    for (int64_t j = 0; j < padded; ++j) {
      const bool kept = j < keys && head.kept(j);
      dropped[j] = kept ? 0.0f : -__builtin_inff();
      keep[j] = kept ? 1.0f : 0.0f;
    }
    if constexpr (packed) {
      pack_keys();
      pack_values();
    }
  }

  // [strip of 16 keys][size][16]
  void pack_keys() {
    for (int64_t j = 0; j < keys; j += kStripLanes) {
      for (int64_t d = 0; d < a.size; d += kStripLanes) {
        F32 block[kStripLanes];
        transposed_block<V>(head.keys, j, keys, d, block);
        float* to = key + j * a.size + d * kStripLanes;
        for (int i = 0; i < kStripLanes && d + i < a.size; ++i) V::store(to + i * kStripLanes, block[i]);
      }
    }
  }

  // [strip of 16 channels][keys][16]: rows of the tensor lie `stride` apart, which can fill one set of L1 again and again.
  void pack_values() {
    float* to = value;
    for (int64_t d = 0; d < a.size; d += kStripLanes)
      for (int64_t j = 0; j < keys; ++j, to += kStripLanes) V::store(to, load_lanes<V>(head.values[j] + d, a.size - d));
  }

  // Keys that a query sees, up to the last kept one.
  int64_t seen(int64_t query) const { return a.seen(query) < keys ? a.seen(query) : keys; }

  template <int rows, int width>
  [[gnu::always_inline]] void scores(int64_t query, int64_t strip) const {
    const float* q = head.queries() + query * a.q_stride;
    F32 sum[rows][width];
    if constexpr (packed)
      float_products<V, rows, width>(sum, q, a.q_stride, key + strip * kStripLanes * a.size, kStripLanes * a.size, a.size);
    else
      dot_rows<V, rows>(sum, q, a.q_stride, head.keys, strip * kStripLanes, keys);
#pragma GCC unroll 4
    for (int s = 0; s < width; ++s) {
      const int64_t at = (strip + s) * kStripLanes;
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) V::store(score + r * padded + at, scaled(sum[r][s], query + r, at));
    }
  }

  // Adding 0 or minus infinity inside the fma leaves the product's rounding as it is.
  [[gnu::always_inline]] F32 scaled(F32 sum, int64_t query, int64_t at) const {
    const F32 product = a.score ? round_trip<V>(sum, a.score) : sum, scale = V::set1(a.scale);
    const float* added = head.bias(query);
    if (!added) return V::fma(product, scale, V::load(dropped + at));
    return V::add(V::fma(product, scale, load_lanes<V>(added + at, a.keys() - at)), V::load(dropped + at));
  }

  // A vector of the scores of a row of which the first `count` are seen; the others are -inf.
  [[gnu::always_inline]] static F32 shown(const float* row, int64_t j, int64_t count) {
    const F32 v = V::load(row + j);
    return count - j >= kStripLanes ? v : V::fill_from(v, static_cast<int>(count - j), -__builtin_inff());
  }

  // Turns the `count` scores of a row into e, and 0 up to `end`, and returns 1 / z; or into rounded probabilities, of which the
  // factor is 1.
  [[gnu::always_inline]] float softmax(float* row, int64_t count, int64_t end) const {
    if (count <= first) {
      for (int64_t j = 0; j < end; j += kStripLanes) V::store(row + j, V::zero());
      return 0.0f;
    }
    F32 top = V::set1(-__builtin_inff()), sum = V::zero();
    for (int64_t j = 0; j < count; j += kStripLanes) top = V::max(top, shown(row, j, count));
    const float most = V::reduce_max(top);
    for (int64_t j = 0; j < count; j += kStripLanes) {
      F32 e = V::mul(openwork::exp<V>(V::sub(V::load(row + j), V::set1(most))), V::load(keep + j));
      if (count - j < kStripLanes) e = V::fill_from(e, static_cast<int>(count - j), 0.0f);
      sum = V::add(sum, e);
      V::store(row + j, e);
    }
    for (int64_t j = strips_of(count) * kStripLanes; j < end; j += kStripLanes) V::store(row + j, V::zero());
    float factor = 1.0f / V::reduce_add(sum);
    if (a.probability) {
      for (int64_t j = 0; j < end; j += kStripLanes)
        V::store(row + j, round_trip<V>(V::mul(V::load(row + j), V::set1(factor)), a.probability));
      factor = 1.0f;
    }
    // Where the bias leaves nothing, there is no number.
    return a.bias.data ? factor + (most - most) : factor;
  }

  template <int rows, int width>
  [[gnu::always_inline]] void weigh(int64_t query, int64_t strip, int64_t end, const float (&factor)[rows]) const {
    F32 sum[rows][width];
    if constexpr (packed)
      float_products<V, rows, width>(sum, score, padded, value + strip * kStripLanes * keys, kStripLanes * keys, end);
    else
      mix_rows<V, rows, width>(sum, score, padded, head.values, strip * kStripLanes, end);
    for (int r = 0; r < rows; ++r)
      for (int s = 0; s < width; ++s) head.store(V::mul(sum[r][s], V::set1(factor[r])), query + r, (strip + s) * kStripLanes);
  }

  template <int rows>
  void block(int64_t query) const {
    const int64_t end = seen(query + rows - 1);
    constexpr int kWidth = packed ? V::kFloatStrips : 1, kMixed = packed ? V::kFloatStrips : mixed_strips<V>(rows);
    cover<kWidth>(0, strips_of(end), [&]<int width>(int64_t strip) { scores<rows, width>(query, strip); });
    float factor[rows];
    for (int r = 0; r < rows; ++r) factor[r] = softmax(score + r * padded, seen(query + r), strips_of(end) * kStripLanes);
    cover<kMixed>(0, strips_of(a.size), [&]<int width>(int64_t strip) { weigh<rows, width>(query, strip, end, factor); });
  }

  void run(int64_t begin, int64_t end) const {
    if (keys == 0)
      head.zeros(begin, end);
    else
      cover<kRows>(begin, end, [&]<int rows>(int64_t query) { block<rows>(query); });
  }
};

}  // namespace openwork::ops
