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

// Where rows stand that are taken one after the other from `row` on.
template <class V>
class Positions {
 public:
  Positions(const EmbeddingSumArgs& a, int64_t row) : a_(a) {
    if (a.padding_id < 0) return;
    for (int64_t before = row - row % a.length; before < row; ++before) counted_ += a.ids[before] != a.padding_id;
  }
  int64_t next(int64_t row) {
    const int64_t place = row % a_.length;
    if (a_.padding_id < 0) return place;
    if (place == 0) counted_ = 0;
    if (a_.ids[row] == a_.padding_id) return a_.padding_id;
    return a_.padding_id + ++counted_;
  }

 private:
  const EmbeddingSumArgs& a_;
  int64_t counted_ = 0;
};

template <class V>
void embedding_sum(const EmbeddingSumArgs& a, int64_t begin, int64_t end) {
  Positions<V> positions(a, begin);
  for (int64_t row = begin; row < end; ++row) {
    if (row + kRowsAhead < end) prefetch_row<V>(a.word + a.ids[row + kRowsAhead] * a.width, a.width);
    const float* word = a.word + a.ids[row] * a.width;
    const float* position = a.position + positions.next(row) * a.width;
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
