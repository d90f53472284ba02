// Embedding sum: (word[id] + type[t]) + position[l].
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

template <class V>
void embedding_sum(const EmbeddingSumArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
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
