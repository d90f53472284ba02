// Sums, means and maxima of rows of a table.
#pragma once

#include <type_traits>

#include "ops/byte_blocks.h"
#include "ops/table_arguments.h"

namespace openwork::ops {

// Rows of a large table come from memory, one line after the other: those of a few bags ahead are asked for, as far as the rows
// of one bag, or the next rows of a long one.
inline constexpr int64_t kBagsAhead = 4, kBagRowsAhead = 8, kCacheLine = 64;

struct Bag {
  int64_t begin, end;
};

inline Bag bag_of(const EmbeddingBagArgs& a, int64_t bag) {
  if (!a.offsets) return {bag * a.stride + a.first, bag * a.stride + a.first + a.count};
  return {a.offsets[bag], a.last_given || bag + 1 < a.bags ? a.offsets[bag + 1] : a.end};
}

template <class V, bool bytes>
struct BagRows {
  using F32 = typename V::F32;
  using Element = std::conditional_t<bytes, uint8_t, float>;

  const EmbeddingBagArgs& a;

  const Element* row(int64_t at) const { return static_cast<const Element*>(a.table.rows) + a.ids[at] * a.table.width; }

  void ask_for(int64_t at) const {
    const char* line = reinterpret_cast<const char*>(row(at));
    const int64_t size = a.table.width * static_cast<int64_t>(sizeof(Element));
    for (int64_t i = 0; i < size; i += kCacheLine) __builtin_prefetch(line + i);
  }
  void ask_for_bag(int64_t bag) const {
    const Bag next = bag_of(a, bag);
    for (int64_t at = next.begin; at < next.end && at < next.begin + kBagRowsAhead; ++at) ask_for(at);
  }

  // A block of the row of the id at this place.
  [[gnu::always_inline]] void load(int64_t at, int64_t channel, int64_t left, F32 (&v)[4]) const {
    if constexpr (!bytes) return load_block<V>(row(at) + channel, left, v);
    const auto scale = V::set1(a.table.scale[a.ids[at]]);
    const int32_t zero_point = a.table.zero_point[a.ids[at]];
    const auto* p = reinterpret_cast<const uint8_t*>(row(at)) + channel;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int64_t lanes = left_of(left, i);
      v[i] = lanes > 0 ? dequantize_lanes<V>(load_byte_lanes<V>(p + i * kStripLanes, lanes), zero_point, scale) : V::zero();
    }
  }

  // What a bag's rows make of one block.
  template <BagMode mode, bool weighted>
  [[gnu::always_inline]] void block(const Bag& bag, int64_t channel, int64_t left, F32 (&total)[4]) const {
    if (bag.begin == bag.end) {
      for (auto& each : total) each = V::zero();
      return;
    }
    load(bag.begin, channel, left, total);
    if constexpr (weighted)
#pragma GCC unroll 4
      for (auto& each : total) each = V::mul(each, V::set1(a.weights[bag.begin]));
    for (int64_t at = bag.begin + 1; at < bag.end; ++at) {
      if (channel == 0 && at + kBagRowsAhead < bag.end) ask_for(at + kBagRowsAhead);
      F32 v[4];
      load(at, channel, left, v);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        if constexpr (mode == BagMode::max) total[i] = V::max(total[i], v[i]);
        else if constexpr (weighted) total[i] = V::fma(v[i], V::set1(a.weights[at]), total[i]);
        else total[i] = V::add(total[i], v[i]);
      }
    }
    if constexpr (mode == BagMode::mean)
#pragma GCC unroll 4
      for (auto& each : total) each = V::div(each, V::set1(static_cast<float>(bag.end - bag.begin)));
  }

  template <BagMode mode, bool weighted>
  void run(int64_t begin, int64_t end) const {
    for (int64_t bag = begin; bag < end; ++bag) {
      if (bag + kBagsAhead < end) ask_for_bag(bag + kBagsAhead);
      const Bag own = bag_of(a, bag);
      for (int64_t channel = 0; channel < a.table.width; channel += kBlock) {
        F32 total[4];
        const int64_t left = a.table.width - channel;
        block<mode, weighted>(own, channel, left, total);
        store_block<V>(a.y + bag * a.y_stride + channel, total, left);
      }
    }
  }

  void run(int64_t begin, int64_t end) const {
    if (a.mode == BagMode::max) return run<BagMode::max, false>(begin, end);
    if (a.mode == BagMode::mean) return run<BagMode::mean, false>(begin, end);
    a.weights ? run<BagMode::sum, true>(begin, end) : run<BagMode::sum, false>(begin, end);
  }
};

template <class V>
void embedding_bag(const EmbeddingBagArgs& a, int64_t begin, int64_t end) {
  a.table.scale ? BagRows<V, true>{a}.run(begin, end) : BagRows<V, false>{a}.run(begin, end);
}

}  // namespace openwork::ops
