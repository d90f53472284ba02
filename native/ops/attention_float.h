// The general form of attention, in binary32: scores, softmax and the weighted sum of the values for a few query rows at
// once, so that the scores never leave L1.
#pragma once

#include "ops/attention_head.h"

namespace openwork::ops {

template <class V>
[[gnu::always_inline]] inline typename V::F32 round_trip(typename V::F32 v, const RoundTrip& r) {
  const auto q = V::to_f32(openwork::quantize<V>(v, r.quantizer));
  return V::mul(V::sub(q, V::set1(static_cast<float>(r.quantizer.zero_point))), V::set1(r.scale));
}

template <class V>
struct FloatAttention {
  using F32 = typename V::F32;
  static_assert(V::kFloatRows <= kAttentionRows);

  const AttentionHead<V>& head;
  const AttentionArgs& a;
  int64_t keys;    // up to the last kept one: what follows adds nothing
  int64_t strips;  // of 16 keys
  float *key, *value, *score, *bias, *keep;

  explicit FloatAttention(const AttentionHead<V>& h) : head(h), a(h.a) {
    for (keys = a.length; keys > 0 && !head.kept(keys - 1); --keys) {}
    strips = strips_of(keys);
    const int64_t padded = strips * kStripLanes, value_strips = strips_of(a.size);
    key = a.scratch;
    value = key + padded * a.size;
    score = value + value_strips * kStripLanes * keys;
    bias = score + V::kFloatRows * padded;
    keep = bias + padded;
    for (int64_t j = 0; j < padded; ++j) {
      const bool kept = j < keys && head.kept(j);
      bias[j] = kept ? 0.0f : -__builtin_inff();
      keep[j] = kept ? 1.0f : 0.0f;
    }
    pack_keys();
    pack_values();
  }

  // [strip of 16 keys][size][16]
  void pack_keys() {
    const float* k = a.k + head.offset();
    for (int64_t j = 0; j < keys; j += kStripLanes) {
      for (int64_t d = 0; d < a.size; d += kStripLanes) {
        F32 block[kStripLanes];
        for (int i = 0; i < kStripLanes; ++i)
          block[i] = j + i < keys ? load_lanes<V>(k + (j + i) * a.stride + d, a.size - d) : V::zero();
        V::transpose(block);
        float* to = key + j * a.size + d * kStripLanes;
        for (int i = 0; i < kStripLanes && d + i < a.size; ++i) V::store(to + i * kStripLanes, block[i]);
      }
    }
  }

  // [strip of 16 channels][keys][16]: rows of the tensor lie `stride` apart, which can fill one set of L1 again and again.
  void pack_values() {
    const float* v = a.v + head.offset();
    float* to = value;
    for (int64_t d = 0; d < a.size; d += kStripLanes)
      for (int64_t j = 0; j < keys; ++j, to += kStripLanes) V::store(to, load_lanes<V>(v + j * a.stride + d, a.size - d));
  }

  template <int rows, int width>
  [[gnu::always_inline]] void scores(const float* q, int64_t strip, F32 (&top)[rows]) const {
    FloatTile<V, rows, width> tile;
    tile.multiply(q, a.stride, key + strip * kStripLanes * a.size, kStripLanes * a.size, a.size);
    const F32 scale = V::set1(a.scale);
#pragma GCC unroll 4
    for (int s = 0; s < width; ++s) {
      const int64_t at = (strip + s) * kStripLanes;
      const F32 masked = V::load(bias + at);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        // Adding 0 or minus infinity inside the fma leaves the product's rounding as it is.
        const F32 product = a.score ? round_trip<V>(tile.sum[r][s], a.score) : tile.sum[r][s];
        const F32 v = V::fma(product, scale, masked);
        top[r] = V::max(top[r], v);
        V::store(score + r * strips * kStripLanes + at, v);
      }
    }
  }

  // Turns the scores of a row into e and returns 1 / z; or into rounded probabilities, of which the factor is 1.
  [[gnu::always_inline]] float softmax(float* row, F32 top) const {
    const F32 m = V::set1(V::reduce_max(top));
    F32 sum = V::zero();
    for (int64_t j = 0; j < strips * kStripLanes; j += kStripLanes) {
      const F32 e = V::mul(openwork::exp<V>(V::sub(V::load(row + j), m)), V::load(keep + j));
      sum = V::add(sum, e);
      V::store(row + j, e);
    }
    const float inverse = 1.0f / V::reduce_add(sum);
    if (!a.probability) return inverse;
    for (int64_t j = 0; j < strips * kStripLanes; j += kStripLanes)
      V::store(row + j, round_trip<V>(V::mul(V::load(row + j), V::set1(inverse)), a.probability));
    return 1.0f;
  }

  template <int rows>
  void weigh(int64_t query, const float (&inverse)[rows]) const {
    cover<V::kFloatStrips>(0, strips_of(a.size), [&]<int width>(int64_t strip) {
      FloatTile<V, rows, width> tile;
      tile.multiply(score, strips * kStripLanes, value + strip * kStripLanes * keys, kStripLanes * keys, keys);
      for (int r = 0; r < rows; ++r)
        for (int s = 0; s < width; ++s)
          head.store(V::mul(tile.sum[r][s], V::set1(inverse[r])), query + r, (strip + s) * kStripLanes);
    });
  }

  template <int rows>
  void block(int64_t query) const {
    const float* q = a.q + head.offset() + query * a.stride;
    F32 top[rows];
    for (auto& t : top) t = V::set1(-__builtin_inff());
    cover<V::kFloatStrips>(0, strips, [&]<int width>(int64_t strip) { scores<rows, width>(q, strip, top); });
    float inverse[rows];
    for (int r = 0; r < rows; ++r) inverse[r] = softmax(score + r * strips * kStripLanes, top[r]);
    weigh<rows>(query, inverse);
  }

  void run(int64_t begin, int64_t end) const {
    if (keys == 0)
      head.zeros(begin, end);
    else
      cover<V::kFloatRows>(begin, end, [&]<int rows>(int64_t query) { block<rows>(query); });
  }
};

}  // namespace openwork::ops
