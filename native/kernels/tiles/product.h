// The inner loop on a matrix unit: one or two tiles of rows times one or two strips. Included only by the instruction sets' own
// translation units.
#pragma once

#include <utility>

#include "kernels/tiles/cut.h"
#include "kernels/types.h"

namespace openwork::tiles {

template <class Sum>
struct ProductArgs {
  const uint8_t* x;        // step i's line: [steps][32 rows][64]
  const uint8_t* weights;  // [steps][strips] tiles
  int64_t steps;
  const int32_t* start;  // of the strips' channels, INT8 only
  Sum* sums;             // [32 rows][strips * 16]
  Sum* spare;            // as many for each further chain
};

// Four accumulators hide each other's latency: where the product has less, the steps take turns on several chains of them. Tiles 0
// to 3 are the accumulators, 4 and 5 the rows, 6 and 7 the weights.
template <class V, Type type, int rows, int strips>
struct Product {
  using Tiles = typename V::Tiles;
  using E = Element<V, type>;
  using Sum = typename E::Sum;
  static constexpr int kChains = 4 / (rows * strips);
  static constexpr int64_t kRowSums = strips * kStripLanes, kSums = kPanelRows * kRowSums;

  static constexpr int acc(int chain, int r, int s) { return (chain * rows + r) * strips + s; }
  static constexpr int row_tile(int chain, int r) { return 4 + (rows == 2 ? r : chain % 2); }
  static constexpr int weight_tile(int chain, int s) { return 6 + (strips == 2 ? s : chain % 2); }

  // The rows that each tile has.
  static void configure(Tiles& tiles, const int (&height)[2]) {
    uint8_t of[8];
    for (int chain = 0; chain < kChains; ++chain)
      for (int r = 0; r < rows; ++r)
        for (int s = 0; s < strips; ++s) of[acc(chain, r, s)] = static_cast<uint8_t>(height[r]);
    for (int i = 0; i < 2; ++i) of[4 + i] = static_cast<uint8_t>(height[rows == 2 ? i : 0]);
    of[6] = of[7] = kTileRows;
    tiles.configure(of);
  }

  template <int chain, int s>
  [[gnu::always_inline]] static void begin(Tiles& tiles, const ProductArgs<Sum>& a) {
    const auto of_row = [&]<int r>() {
      if constexpr (chain == 0 && type == Type::i8)
        tiles.template load<acc(chain, r, s)>(a.start + s * kStripLanes, 0);
      else
        tiles.template zero<acc(chain, r, s)>();
    };
    of_row.template operator()<0>();
    if constexpr (rows == 2) of_row.template operator()<1>();
  }
  template <int chain, int r, int s>
  [[gnu::always_inline]] static void multiply(Tiles& tiles) {
    if constexpr (type == Type::i8)
      tiles.template dot_i8<acc(chain, r, s), row_tile(chain, r), weight_tile(chain, s)>();
    else
      tiles.template dot_bf16<acc(chain, r, s), row_tile(chain, r), weight_tile(chain, s)>();
  }
  // A product stands behind each load that it needs, so that loads and products take turns.
  template <int chain>
  [[gnu::always_inline]] static void step(Tiles& tiles, const uint8_t* x, const uint8_t* w) {
    tiles.template load<row_tile(chain, 0)>(x, kLineBytes);
    tiles.template load<weight_tile(chain, 0)>(w, kLineBytes);
    multiply<chain, 0, 0>(tiles);
    if constexpr (strips == 2) {
      tiles.template load<weight_tile(chain, 1)>(w + kTileBytes, kLineBytes);
      multiply<chain, 0, 1>(tiles);
    }
    if constexpr (rows == 2) {
      tiles.template load<row_tile(chain, 1)>(x + kTileBytes, kLineBytes);
      multiply<chain, 1, 0>(tiles);
      if constexpr (strips == 2) multiply<chain, 1, 1>(tiles);
    }
  }
  template <int chain, int s>
  [[gnu::always_inline]] static void end(Tiles& tiles, Sum* to) {
    constexpr int64_t stride = kRowSums * int64_t{sizeof(Sum)};
    tiles.template store<acc(chain, 0, s)>(to + s * kStripLanes, stride);
    if constexpr (rows == 2) tiles.template store<acc(chain, 1, s)>(to + kTileRows * kRowSums + s * kStripLanes, stride);
  }
  template <class F>
  [[gnu::always_inline]] static void each_strip(const F& f) {
    f.template operator()<0>();
    if constexpr (strips == 2) f.template operator()<1>();
  }
  template <class F>
  [[gnu::always_inline]] static void each_chain(const F& f) {
    f.template operator()<0>();
    if constexpr (kChains > 1) f.template operator()<1>();
    if constexpr (kChains > 2) f.template operator()<2>(), f.template operator()<3>();
  }

  // The two kilobytes behind the weights of a step, of which each takes so much: a few percent, more where they come from L3.
  [[gnu::always_inline]] static void ask_for(const uint8_t* weights) {
    for (int64_t at = 0; at < strips * kTileBytes; at += kLineBytes) __builtin_prefetch(weights + 2 * kTileBytes + at);
  }

  // Calls meanwhile() once a step. `height`: of the tiles as configured. `asks`: for weights that are not in L1 yet.
  template <bool asks, class F>
  static void run(Tiles& tiles, const ProductArgs<Sum>& a, const int (&height)[2], const F& meanwhile) {
    each_chain([&]<int chain>() { each_strip([&]<int s>() { begin<chain, s>(tiles, a); }); });
    int64_t i = 0;
    for (; i + kChains <= a.steps; i += kChains)
      each_chain([&]<int chain>() {
        const uint8_t* w = a.weights + (i + chain) * strips * kTileBytes;
        if constexpr (asks) ask_for(w);
        step<chain>(tiles, a.x + (i + chain) * kPanelLineBytes, w);
        meanwhile();
      });
    each_chain([&]<int chain>() {
      if (i + chain < a.steps) {
        step<chain>(tiles, a.x + (i + chain) * kPanelLineBytes, a.weights + (i + chain) * strips * kTileBytes);
        meanwhile();
      }
    });
    each_chain([&]<int chain>() {
      each_strip([&]<int s>() { end<chain, s>(tiles, chain == 0 ? a.sums : a.spare + (chain - 1) * kSums); });
    });
    if constexpr (kChains > 1) add_chains(a, height);
  }

  static void add_chains(const ProductArgs<Sum>& a, const int (&height)[2]) {
    for (int r = 0; r < rows; ++r)
      for (int64_t at = r * kTileRows * kRowSums; at < (r * kTileRows + height[r]) * kRowSums; at += kStripLanes) {
        auto sum = E::load(a.sums + at);
        for (int chain = 1; chain < kChains; ++chain) sum = E::add(sum, E::load(a.spare + (chain - 1) * kSums + at));
        E::store(a.sums + at, sum);
      }
  }
};

}  // namespace openwork::tiles
