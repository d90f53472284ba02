// Embedding sum: (word[id] + type[t]) + position[l].
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

// Rows of a large table come from memory: asking for one a few rows ahead hides most of the wait.
inline constexpr int64_t kRowsAhead = 4;

template <class V>
[[gnu::always_inline]] inline void prefetch_row(const float* row, int64_t width) {
  for (int64_t i = 0; i < width; i += kStripLanes) __builtin_prefetch(row + i);
}

template <class V>
void embedding_sum(const EmbeddingSumArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    if (row + kRowsAhead < end) prefetch_row<V>(a.word + a.ids[row + kRowsAhead] * a.width, a.width);
    const float* word = a.word + a.ids[row] * a.width;
    const float* position = a.position + (row % a.length) * a.width;
    const float* type = a.type_ids ? a.type + a.type_ids[row] * a.width : nullptr;
    float* y = a.y + row * a.width;
    for (int64_t i = 0; i < a.width; i += kStripLanes) {
      const int64_t left = a.width - i;
      auto v = load_lanes<V>(word + i, left);
      if (type) v = V::add(v, load_lanes<V>(type + i, left));
      store_lanes<V>(y + i, V::add(v, load_lanes<V>(position + i, left)), left);
    }
  }
}

}  // namespace openwork::ops
