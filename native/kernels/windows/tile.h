// The inner loop of every product, dense and windowed-sparse: a tile of rows times the strips of one group, over a vocabulary
// V of simd/. Included only by the instruction sets' own translation units: everything here is a template over V, so no two
// of them share a symbol.
#pragma once

#include "kernels/windows/tiling.h"

namespace openwork::windows {

template <class Sum>
struct TileArgs {
  const uint8_t* const* x;  // of the tile's first row
  int64_t x_stride;         // pointers, from one run to the next
  int64_t row_bytes;        // from one row of a run to the next, or 0: the rows lie anywhere
  const uint8_t* weights;   // the group's steps
  const int32_t* advance;   // to each step's window
  const int32_t* run_steps;
  int64_t runs;
  const uint8_t* ahead;  // the next group's weights, of which this tile asks for a part
  const int32_t* start;  // of the group's channels, INT8 only
  Sum* sums;             // [rows][the group's channels]
};

// Where the windows of a tile's rows begin. Rows that lie at equal distances (a matrix) are addressed with few registers: one
// base for every four rows, and the distance as an index that x86 scales by 1 and 2, the third by a second index register.
template <int rows>
struct SpacedRows {
  static constexpr int kBases = (rows + 3) / 4;
  const uint8_t* base[kBases];
  int64_t distance, distance3;

  template <class Sum>
  [[gnu::always_inline]] SpacedRows(const TileArgs<Sum>& a, const uint8_t* const* x) : distance(a.row_bytes), distance3(3 * a.row_bytes) {
    for (int i = 0; i < kBases; ++i) base[i] = x[0] + 4 * i * a.row_bytes;
  }
  [[gnu::always_inline]] void move(int64_t bytes) {
    for (int i = 0; i < kBases; ++i) base[i] += bytes;
  }
  [[gnu::always_inline]] const uint8_t* row(int r) const {
    const uint8_t* p = base[r / 4];
    return r % 4 == 0 ? p : r % 4 == 1 ? p + distance : r % 4 == 2 ? p + 2 * distance : p + distance3;
  }
};

// Rows anywhere: their pointers are read again at each step, as they would not fit the registers.
template <int rows>
struct AnyRows {
  const uint8_t* const* x;
  int64_t offset = 0;

  template <class Sum>
  [[gnu::always_inline]] AnyRows(const TileArgs<Sum>&, const uint8_t* const* pointers) : x(pointers) {}
  [[gnu::always_inline]] void move(int64_t bytes) { offset += bytes; }
  [[gnu::always_inline]] const uint8_t* row(int r) const { return x[r] + offset; }
};

template <class V, Type type, Form form, int rows>
struct Tile {
  using E = Element<V, type>;
  using T = Tiling<V, form>;
  using Bytes = typename V::Bytes;
  static constexpr int kStrips = T::kStrips;
  // Few accumulators would wait for each other's latency: INT8 sums, exact in any order, are then made in several chains.
  static constexpr int kWanted = V::kChainedRegisters / (rows * kStrips);
  static constexpr int kChains = !E::kAnyOrder || kWanted < 2 ? 1 : kWanted < 4 ? 2 : 4;
  // Steps between two branches, so that the CPU foresees the end of the loop: worth 5% at k = 384 where a window has one step.
  // Windows of 64 bytes lose 5% by it.
  static constexpr int kWorthwhile = !T::kShuffled ? 2 : T::kInfo.reach == 64 ? 1 : 4;
  static constexpr int kUnroll = kChains > kWorthwhile ? kChains : kWorthwhile;
  // A low tile is one of at most three, so there is nobody to share the asking for the next weights with, and it is their
  // bytes that take the time: it asks for all of them, far enough ahead for the third level of cache. 1 to 16 rows of 1024 x 1024
  // become 5 to 50% faster, dense ones too.
  static constexpr bool kStreams = 3 * rows <= 2 * T::kMaxRows;
  static constexpr int kStreamAhead = 8192;
  using Sums = typename E::Vector[kChains][rows][kStrips];

  [[gnu::always_inline]] static auto window(const uint8_t* p) {
    constexpr int reach = T::kInfo.reach;
    if constexpr (reach == 4) return E::activations(V::window4(p));
    if constexpr (reach == 8) return E::activations(V::window8(p));
    if constexpr (reach == 16) return E::activations(V::window16(p));
    if constexpr (reach == 64) return E::activations(V::window64(p));
  }
  // The 8 bytes of a window fill each 16-byte lane twice, so that the in-lane shuffle reaches them.
  [[gnu::always_inline]] static Bytes pick(Bytes from, Bytes index) {
    if constexpr (T::kInfo.reach == 64)
      return V::shuffle64(from, index);
    else
      return V::shuffle16(from, index);
  }
  [[gnu::always_inline]] static Bytes load_index(const uint8_t* p) {
    if constexpr (T::kInfo.bits == 2)
      return V::expand2(p);
    else if constexpr (T::kInfo.bits == 4)
      return V::expand4(p);
    else
      return V::load_bytes(p);
  }

  // One step: the weights (and indices) of every strip stay in registers for all rows.
  template <class Rows>
  [[gnu::always_inline]] static void step(const Rows& x, const uint8_t* w, const uint8_t*& ahead,
                                          typename E::Vector (&acc)[rows][kStrips]) {
    // Without this the compiler keeps the windows of all rows in registers over the steps and spills the accumulators.
    asm volatile("" ::: "memory");
    if constexpr (kStreams) {
#pragma GCC unroll 8
      for (int b = 0; b < T::kStepBytes; b += 64) __builtin_prefetch(w + kStreamAhead + b, 0, 3);
    } else {
      __builtin_prefetch(ahead, 0, 2);
      ahead += 64;
    }
    Bytes index[kStrips], weight[kStrips];
#pragma GCC unroll 4
    for (int m = 0; m < T::kMasks; ++m) index[m] = load_index(w + m * T::kIndexBytes);
#pragma GCC unroll 4
    for (int s = 0; s < kStrips; ++s) weight[s] = V::load_bytes(w + T::kMasks * T::kIndexBytes + 64 * s);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const auto bytes = window(x.row(r));
      if constexpr (T::kShuffled) {
#pragma GCC unroll 4
        for (int m = 0; m < T::kMasks; ++m) {
          const Bytes picked = pick(bytes, index[m]);
#pragma GCC unroll 4
          for (int s = m * T::kInfo.share; s < (m + 1) * T::kInfo.share; ++s) acc[r][s] = E::dot(acc[r][s], picked, weight[s]);
        }
      } else {
#pragma GCC unroll 4
        for (int s = 0; s < kStrips; ++s) acc[r][s] = E::dot(acc[r][s], bytes, weight[s]);
      }
    }
  }

  // The strips that share a mask hold neighbouring channels: channel c of theirs stands in strip c mod share.
  [[gnu::always_inline]] static void store(typename E::Vector (&acc)[kStrips], typename E::Sum* to) {
    if constexpr (T::kInfo.share == 2)
#pragma GCC unroll 4
      for (int m = 0; m < T::kMasks; ++m) V::interleave(acc[2 * m], acc[2 * m + 1]);
    if constexpr (T::kInfo.share == 4) {
      V::interleave(acc[0], acc[2]);
      V::interleave(acc[1], acc[3]);
      V::interleave(acc[0], acc[1]);
      V::interleave(acc[2], acc[3]);
    }
#pragma GCC unroll 4
    for (int s = 0; s < kStrips; ++s) E::store(to + s * kStripLanes, acc[s]);
  }

  template <class Rows>
  [[gnu::always_inline]] static void add_products(const TileArgs<typename E::Sum>& a, Sums& acc) {
    const uint8_t* w = a.weights;
    const uint8_t* ahead = a.ahead;
    const int32_t* advance = a.advance;
    const uint8_t* const* pointers = a.x;
    for (int64_t run = 0; run < a.runs; ++run, pointers += a.x_stride) {
      Rows x(a, pointers);
      int64_t left = a.run_steps[run];
      for (; left >= kUnroll; left -= kUnroll, advance += kUnroll) {
#pragma GCC unroll 4
        for (int i = 0; i < kUnroll; ++i, w += T::kStepBytes) {
          x.move(advance[i]);
          step(x, w, ahead, acc[i % kChains]);
        }
      }
      for (; left > 0; --left, w += T::kStepBytes) {
        x.move(*advance++);
        step(x, w, ahead, acc[0]);
      }
    }
  }

  static void run(const TileArgs<typename E::Sum>& a) {
    Sums acc;
#pragma GCC unroll 4
    for (int s = 0; s < kStrips; ++s) {
      auto start = E::zero();
      if constexpr (type == Type::i8) start = E::load(a.start + s * kStripLanes);
#pragma GCC unroll 4
      for (int c = 0; c < kChains; ++c)
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) acc[c][r][s] = c ? E::zero() : start;
    }
    if (a.row_bytes)
      add_products<SpacedRows<rows>>(a, acc);
    else
      add_products<AnyRows<rows>>(a, acc);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int c = 1; c < kChains; ++c)
#pragma GCC unroll 4
        for (int s = 0; s < kStrips; ++s) acc[0][r][s] = E::add(acc[0][r][s], acc[c][r][s]);
      store(acc[0][r], a.sums + r * T::kChannels);
    }
  }
};

}  // namespace openwork::windows
