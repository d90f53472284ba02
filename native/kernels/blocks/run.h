// Products with rows in the lanes, over a vocabulary V of simd/: sixteen rows of activations stand in one vector, four bytes
// of input channels in each lane, and every quad of weights (four INT8, two BF16 or one binary32) is broadcast to all of
// them. Quads that are zero for all channels of a block row cost nothing and nothing is shuffled, whatever the pattern; in
// return the activations and the sums are transposed. Included only by the instruction sets' own translation units.
#pragma once

#include <cstddef>

#include "kernels/blocks/cut.h"
#include "kernels/finish.h"
#include "kernels/types.h"

namespace openwork::blocks {

template <class Sum>
struct BlockTileArgs {
  const uint8_t* x;        // quad q of row vector v at x + (q * vectors + v) * 64
  const int32_t* advance;  // quads from each step to the next; the first from 0
  const uint8_t* weights;  // of each step a quad for each channel
  int64_t steps;
  const int32_t* start;  // of the channels, INT8 only
  Sum* sums;             // [channels][vectors][16 rows]
};

// `channels` output channels of one block row times `vectors` vectors of 16 rows.
template <class V, Type type, int channels, int vectors>
struct BlockTile {
  using E = Element<V, type>;

  [[gnu::always_inline]] static void step(const uint8_t* x, const uint8_t* w, typename E::Vector (&acc)[channels][vectors]) {
    decltype(V::window4(w)) weight[channels];
#pragma GCC unroll 8
    for (int c = 0; c < channels; ++c) weight[c] = V::window4(w + 4 * c);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      const auto rows = V::load_bytes(x + 64 * v);
#pragma GCC unroll 8
      for (int c = 0; c < channels; ++c) acc[c][v] = E::dot(acc[c][v], rows, weight[c]);
    }
  }

  static void run(const BlockTileArgs<typename E::Sum>& a) {
    typename E::Vector acc[channels][vectors];
#pragma GCC unroll 8
    for (int c = 0; c < channels; ++c) {
      auto start = E::zero();
      if constexpr (type == Type::i8) start = V::set1_i32(a.start[c]);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) acc[c][v] = start;
    }
    const uint8_t* w = a.weights;
    const uint8_t* x = a.x;
    for (int64_t i = 0; i < a.steps; ++i, w += 4 * channels) {
      x += int64_t{a.advance[i]} * (64 * vectors);
      step(x, w, acc);
    }
#pragma GCC unroll 8
    for (int c = 0; c < channels; ++c)
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) E::store(a.sums + (c * vectors + v) * kStripLanes, acc[c][v]);
  }
};

template <class Sum>
using BlockTileFn = void (*)(const BlockTileArgs<Sum>&);

template <class V, Type type, int channels, int vectors>
struct BlockTiles : BlockTiles<V, type, channels, vectors - 1> {
  using Sum = typename Element<V, type>::Sum;
  BlockTileFn<Sum> tile = BlockTile<V, type, channels, vectors>::run;
  BlockTileFn<Sum> find(int n) const { return n == vectors ? tile : BlockTiles<V, type, channels, vectors - 1>::find(n); }
};
template <class V, Type type, int channels>
struct BlockTiles<V, type, channels, 0> {
  BlockTileFn<typename Element<V, type>::Sum> find(int) const { return nullptr; }
};

// The quads of 64 bytes of 16 rows, one a vector.
template <class V, Type type>
[[gnu::always_inline]] inline void quads_of_rows(const uint8_t* const (&row)[kStripLanes], int64_t at, typename V::Bytes (&m)[kStripLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kStripLanes; ++i) m[i] = Element<V, type>::activations(V::load_bytes(row[i] + at));
  V::transpose(m);
}

// The same of fewer bytes at the end of a run. What lies behind them may be NaN, which a zero weight does not take back.
template <class V, Type type>
void last_quads(const uint8_t* const (&row)[kStripLanes], int64_t at, int64_t bytes, typename V::Bytes (&m)[kStripLanes]) {
  uint8_t copy[kStripLanes][64] = {};
  const uint8_t* copied[kStripLanes];
  for (int i = 0; i < kStripLanes; ++i) {
    __builtin_memcpy(copy[i], row[i] + at, static_cast<std::size_t>(bytes));
    copied[i] = copy[i];
  }
  quads_of_rows<V, type>(copied, 0, m);
}

// Interleaves 16 rows, `bytes` of each, into the quads of one row vector, `distance` bytes from quad to quad.
template <class V, Type type>
void interleave_rows(const uint8_t* const (&row)[kStripLanes], int64_t bytes, uint8_t* to, int64_t distance) {
  typename V::Bytes m[kStripLanes];
  int64_t at = 0;
  for (; at + 64 <= bytes; at += 64) {
    quads_of_rows<V, type>(row, at, m);
#pragma GCC unroll 16
    for (int i = 0; i < kStripLanes; ++i, to += distance) V::store_bytes(to, m[i]);
  }
  if (at == bytes) return;
  last_quads<V, type>(row, at, bytes - at, m);
  for (int i = 0; i < (bytes - at + 3) / 4; ++i, to += distance) V::store_bytes(to, m[i]);
}

// The sums of 16 channels and 16 rows, `distance` from channel to channel, to rows of `stride`.
template <class V, class Sum>
[[gnu::always_inline]] inline void turn_sums(const Sum* sums, int64_t distance, Sum* to, int64_t stride) {
  typename V::Bytes m[kStripLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kStripLanes; ++i) m[i] = V::load_bytes(sums + i * distance);
  V::transpose(m);
#pragma GCC unroll 16
  for (int i = 0; i < kStripLanes; ++i) V::store_bytes(to + i * stride, m[i]);
}

// Vectors of rows of the largest tile: its sums stay in registers.
template <class V>
constexpr int block_vectors(int channels) {
  const int most = most_block_vectors(channels), fit = V::kBlockRegisters / channels;
  return fit < most ? fit : most;
}

template <class V, Type type, int channels>
struct Blocks {
  using Sum = typename Element<V, type>::Sum;
  static constexpr int kVectors = block_vectors<V>(channels);
  static constexpr int kGroup = V::kStrips * kStripLanes;
  static constexpr int kGroupRows = kGroup / channels;  // block rows of a group
  static constexpr BlockTiles<V, type, channels, kVectors> kTiles{};

  // Some vectors of the rows of a block, ready to be multiplied.
  struct Rows {
    int64_t begin;  // row
    int count;
    int vectors;
    const uint8_t* x;
  };

  // The last row stands for those that are missing to whole vectors.
  static Rows load(const GemmArgs& a, const Block& block, int64_t begin, int vectors) {
    const PackedView& w = a.weights;
    const int64_t left = block.row_end - begin, distance = int64_t{64} * vectors, run_bytes = (w.run_bytes + 3) / 4 * distance;
    uint8_t* const scratch = a.scratch;  // a copy: what is written through it may lie anywhere, in `a` too
    for (int64_t run = 0; run < w.runs; ++run) {
      const uint8_t* const* x = a.x + run * a.x_stride + (begin - block.row_begin);
      for (int v = 0; v < vectors; ++v) {
        const uint8_t* row[kStripLanes];
        for (int i = 0; i < kStripLanes; ++i) row[i] = x[v * kStripLanes + i < left ? v * kStripLanes + i : left - 1];
        interleave_rows<V, type>(row, w.run_bytes, scratch + run * run_bytes + 64 * v, distance);
      }
    }
    return {begin, static_cast<int>(left < vectors * kStripLanes ? left : vectors * kStripLanes), vectors, scratch};
  }

  // sums: [the group's channels][vectors][16]
  static void multiply(const GemmArgs& a, const Rows& rows, int64_t group, Sum* sums) {
    const PackedView& w = a.weights;
    const auto tile = kTiles.find(rows.vectors);
    const int32_t *advance = w.advance + w.group_step[group], *steps = w.run_steps + group * kGroupRows;
    const int32_t* start = a.start + group * kGroup;
    const uint8_t* weights = w.data + w.group_data[group];
    for (int b = 0; b < kGroupRows; ++b, start += channels, sums += channels * rows.vectors * kStripLanes) {
      tile({rows.x, advance, weights, steps[b], start, sums});
      advance += steps[b];
      weights += int64_t{steps[b]} * 4 * channels;
    }
  }

  static void turn(const Sum* sums, int vectors, Sum* to) {
    for (int s = 0; s < V::kStrips; ++s)
      for (int v = 0; v < vectors; ++v)
        turn_sums<V>(sums + (s * kStripLanes * vectors + v) * kStripLanes, vectors * kStripLanes,
                     to + v * kStripLanes * kGroup + s * kStripLanes, kGroup);
  }

  static void run(const GemmArgs& a, const Block& block) {
    alignas(64) Sum sums[kVectors * kStripLanes * kGroup], turned[kVectors * kStripLanes * kGroup];
    const auto finish = choose_finish<V, Sum>(a);
    const int64_t total = (block.row_end - block.row_begin + kStripLanes - 1) / kStripLanes;
    const int64_t count = (total + kVectors - 1) / kVectors;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t first = total * i / count;
      const Rows rows = load(a, block, block.row_begin + first * kStripLanes, static_cast<int>(total * (i + 1) / count - first));
      for (int64_t group = block.group_begin; group < block.group_end; ++group) {
        multiply(a, rows, group, sums);
        turn(sums, rows.vectors, turned);
        finish(a, {turned, kGroup}, {rows.begin, rows.count, group * kGroup, kGroup});
      }
    }
  }
};

template <class V, Type type, Form form>
struct Kernels {
  static constexpr bool kExists = form_info(form).share <= V::kBlockRegisters;
  static constexpr int kGroupStrips = V::kStrips;
  static constexpr GemmKernel kernel() { return Blocks<V, type, form_info(form).share>::run; }
};

}  // namespace openwork::blocks
