// Convolutions of each channel for itself, over a vocabulary V of simd/: channels in the lanes, and in each lane as many kernel
// taps as four bytes hold, so that a dot product adds four taps of INT8. Included only by the instruction sets' own
// translation units.
#pragma once

#include "kernels/depthwise/cut.h"
#include "kernels/finish.h"
#include "kernels/types.h"

namespace openwork::depthwise {

// Output pixels of a tile that are made together: one, or neighbours whose input pixels are the same but for the first and the
// last; `even` where those lie side by side.
struct DepthwiseUnit {
  int row, outputs;
  bool even;
};

// Where a group's channels lie in a pixel. A strip behind the last channel reads the first one's, so that no read goes farther
// than kReadAhead; its weights are zero.
template <int strips>
struct DepthwisePlace {
  int64_t group;
  int64_t strip[strips];

  DepthwisePlace(int64_t channel, int64_t n, int bytes) : group(channel * bytes) {
    for (int s = 0; s < strips; ++s) strip[s] = group + (channel + s * kStripLanes < n ? s * kStripLanes * bytes : 0);
  }
};

// kernel_h, kernel_w: 0 where they are known only when it runs.
template <class V, Type type, int kernel_h, int kernel_w>
struct DepthwiseTile {
  using E = Element<V, type>;
  using Sum = typename E::Sum;
  using Bytes = typename V::Bytes;
  using Place = DepthwisePlace<V::kStrips>;
  static constexpr int kStrips = V::kStrips;
  static constexpr int kGroup = kStrips * kStripLanes;
  static constexpr int kTaps = 4 / element_bytes(type);  // of a step
  static constexpr int kOutputs = static_cast<int>(depthwise_steps(type, kernel_w).outputs);
  // Whether the weights of all steps stay in registers.
  static constexpr bool kHeld = kernel_h == 3 && kernel_w == 3 && V::kBlockRegisters >= 16;
  static constexpr int kSteps = kernel_h * static_cast<int>(depthwise_steps(type, kernel_w).steps);
  using Held = Bytes[kHeld ? kSteps : 1][kOutputs][kStrips];

  [[gnu::always_inline]] static void load(const uint8_t* const (&x)[kTaps], const Place& at, Bytes (&to)[kStrips]) {
    if constexpr (kTaps == 4) V::taps4(x, at.group, to);
    if constexpr (kTaps == 2) V::taps2(x, at.group, to);
    if constexpr (kTaps == 1) {
#pragma GCC unroll 4
      for (int s = 0; s < kStrips; ++s) to[s] = V::load_bytes(x[0] + at.strip[s]);
    }
#pragma GCC unroll 4
    for (int s = 0; s < kStrips; ++s) to[s] = E::activations(to[s]);
  }

  // The pixels of a step from column `tap` of a row of taps on. Those behind the last column are the neighbours', and behind the
  // last neighbour's, where there is no weight, that one again. Pixels side by side need one pointer for a row of taps: the time
  // goes to loads.
  template <int outputs, bool even>
  [[gnu::always_inline]] static void pick(const GemmArgs& a, const uint8_t* const* row, int width, int tap, const uint8_t* (&x)[kTaps]) {
#pragma GCC unroll 4
    for (int i = 0; i < kTaps; ++i) {
      const int last = width + outputs - 2, column = tap + i < last ? tap + i : last;
      const int neighbour = column < width ? 0 : column - width + 1;
      x[i] = even ? row[0] + column * a.weights.run_bytes : row[(column - neighbour) * a.x_stride + neighbour];
    }
  }

  // x: of the first output. `outputs`: those wanted, of all that the weights are for.
  template <int outputs, bool even>
  [[gnu::always_inline]] static void unit(const GemmArgs& a, const uint8_t* const* x, const Place& at, const uint8_t* w,
                                          const Held& held, const typename E::Vector (&start)[kStrips], Sum* sums) {
    const int width = kernel_w ? kernel_w : static_cast<int>(a.weights.kernel_w);
    const int height = kernel_h ? kernel_h : static_cast<int>(a.weights.runs) / width;
    typename E::Vector acc[outputs][kStrips];
#pragma GCC unroll 4
    for (int o = 0; o < outputs; ++o)
#pragma GCC unroll 4
      for (int s = 0; s < kStrips; ++s) acc[o][s] = start[s];
#pragma GCC unroll 5
    for (int y = 0; y < height; ++y, x += width * a.x_stride) {
#pragma GCC unroll 3
      for (int tap = 0; tap < width; tap += kTaps, w += 64 * kStrips * kOutputs) {
        const uint8_t* pixels[kTaps];
        pick<outputs, even>(a, x, width, tap, pixels);
        Bytes taps[kStrips];
        load(pixels, at, taps);
#pragma GCC unroll 4
        for (int o = 0; o < outputs; ++o)
#pragma GCC unroll 4
          for (int s = 0; s < kStrips; ++s) {
            if constexpr (kHeld)
              acc[o][s] = E::dot(acc[o][s], taps[s], held[y * (kSteps / 3) + tap / kTaps][o][s]);
            else
              acc[o][s] = E::dot(acc[o][s], taps[s], V::load_bytes(w + 64 * (o * kStrips + s)));
          }
      }
    }
#pragma GCC unroll 4
    for (int o = 0; o < outputs; ++o)
#pragma GCC unroll 4
      for (int s = 0; s < kStrips; ++s) E::store(sums + o * kGroup + s * kStripLanes, acc[o][s]);
  }

  [[gnu::always_inline]] static void hold(const uint8_t* w, Held& held) {
    if constexpr (kHeld) {
#pragma GCC unroll 16
      for (int i = 0; i < kSteps; ++i)
#pragma GCC unroll 4
        for (int o = 0; o < kOutputs; ++o)
#pragma GCC unroll 4
          for (int s = 0; s < kStrips; ++s) held[i][o][s] = V::load_bytes(w + 64 * ((i * kOutputs + o) * kStrips + s));
    }
  }

  template <bool even>
  [[gnu::always_inline]] static void choose(const GemmArgs& a, const uint8_t* const* x, const DepthwiseUnit& u, const Place& at,
                                            const uint8_t* w, const Held& held, const typename E::Vector (&start)[kStrips], Sum* sums) {
    if (u.outputs == kOutputs)
      unit<kOutputs, even>(a, x, at, w, held, start, sums);
    else if (u.outputs == 1)
      unit<1, even>(a, x, at, w, held, start, sums);
    else if (u.outputs == 2)
      unit<kOutputs < 2 ? 1 : 2, even>(a, x, at, w, held, start, sums);
    else
      unit<kOutputs < 3 ? 1 : 3, even>(a, x, at, w, held, start, sums);
  }

  // x: of the tile's first row.
  static void run(const GemmArgs& a, const uint8_t* const* x, const DepthwiseUnit* units, int count, int64_t group, Sum* sums) {
    const uint8_t* w = a.weights.data + a.weights.group_data[group];
    const Place at(group * kGroup, a.n, element_bytes(type));
    Held held;
    hold(w, held);
    typename E::Vector start[kStrips];
#pragma GCC unroll 4
    for (int s = 0; s < kStrips; ++s) {
      start[s] = E::zero();
      if constexpr (type == Type::i8) start[s] = E::load(a.start + group * kGroup + s * kStripLanes);
    }
    for (const DepthwiseUnit* u = units; u < units + count; ++u) {
      const uint8_t* const* first = x + u->row;
      Sum* to = sums + u->row * kGroup;
      u->even ? choose<true>(a, first, *u, at, w, held, start, to) : choose<false>(a, first, *u, at, w, held, start, to);
    }
  }
};

template <class V, Type type>
struct Depthwise {
  using Sum = typename Element<V, type>::Sum;
  static constexpr int kGroup = V::kStrips * kStripLanes;
  static constexpr int kRows = 32;  // of a tile
  using TileFn = void (*)(const GemmArgs&, const uint8_t* const* x, const DepthwiseUnit*, int count, int64_t group, Sum*);

  static TileFn find_tile(int64_t kernel_h, int64_t kernel_w) {
    if (kernel_w == 3) return kernel_h == 3 ? DepthwiseTile<V, type, 3, 3>::run : DepthwiseTile<V, type, 0, 3>::run;
    if (kernel_w == 5) return kernel_h == 5 ? DepthwiseTile<V, type, 5, 5>::run : DepthwiseTile<V, type, 0, 5>::run;
    return DepthwiseTile<V, type, 0, 0>::run;
  }

  // bent[r] is 0 where the pixels of row r lie side by side in each row of taps, apart[r] where then those of row r + 1 begin
  // one pixel behind them.
  static void compare(const GemmArgs& a, const uint8_t* const* x, int rows, uintptr_t (&bent)[kRows], uintptr_t (&apart)[kRows]) {
    const auto pixel = static_cast<uintptr_t>(a.weights.run_bytes);
    const auto number = [](const uint8_t* p) { return reinterpret_cast<uintptr_t>(p); };
    for (int r = 0; r < rows; ++r) bent[r] = apart[r] = 0;
    for (int64_t y = 0; y < a.weights.runs; y += a.weights.kernel_w) {
      const uint8_t* const* first = x + y * a.x_stride;
      for (int r = 0; r < rows - 1; ++r) apart[r] |= number(first[r + 1]) ^ (number(first[r]) + pixel);
      for (int64_t t = 1; t < a.weights.kernel_w; ++t) {
        const uint8_t* const* tap = first + t * a.x_stride;
        for (int r = 0; r < rows; ++r) bent[r] |= number(tap[r]) ^ (number(first[r]) + static_cast<uintptr_t>(t) * pixel);
      }
    }
  }
  // A look at each pointer of the rows that are bent, at an image's edges.
  static void compare_bent(const GemmArgs& a, const uint8_t* const* x, int rows, const uintptr_t (&bent)[kRows], uintptr_t (&apart)[kRows]) {
    for (int r = 0; r < rows - 1; ++r)
      if (bent[r] | bent[r + 1]) apart[r] = !moved(a, x + r);
  }
  static bool moved(const GemmArgs& a, const uint8_t* const* x) {
    bool same = true;
    for (int64_t y = 0; y < a.weights.runs; y += a.weights.kernel_w)
      for (int64_t t = y; t < y + a.weights.kernel_w - 1; ++t) same &= x[t * a.x_stride + 1] == x[(t + 1) * a.x_stride];
    return same;
  }

  // The rows of a tile cut into units. Returns their number.
  static int cut(const GemmArgs& a, const uint8_t* const* x, int rows, DepthwiseUnit* units) {
    const int outputs = static_cast<int>(depthwise_steps(type, a.weights.kernel_w).outputs);
    uintptr_t bent[kRows], apart[kRows];
    compare(a, x, rows, bent, apart);
    // The look takes longer than two outputs together gain.
    const bool join_bent = outputs > 2;
    if (join_bent) compare_bent(a, x, rows, bent, apart);
    int count = 0;
    for (int row = 0; row < rows; row += units[count++].outputs) {
      int together = 1;
      uintptr_t any_bent = bent[row];
      for (; together < outputs && row + together < rows && apart[row + together - 1] == 0; ++together) {
        if (!join_bent && (any_bent | bent[row + together])) break;
        any_bent |= bent[row + together];
      }
      units[count] = {row, together, any_bent == 0};
    }
    return count;
  }

  static void run(const GemmArgs& a, const Block& block) {
    alignas(64) Sum sums[kRows * kGroup];
    DepthwiseUnit units[kRows];
    const auto finish = choose_finish<V, Sum>(a);
    const auto tile = find_tile(a.weights.runs / a.weights.kernel_w, a.weights.kernel_w);
    for (int64_t row = block.row_begin; row < block.row_end; row += kRows) {
      const int rows = static_cast<int>(block.row_end - row < kRows ? block.row_end - row : kRows);
      const uint8_t* const* x = a.x + (row - block.row_begin);
      const int count = cut(a, x, rows, units);
      for (int64_t group = block.group_begin; group < block.group_end; ++group) {
        tile(a, x, units, count, group, sums);
        finish(a, {sums, kGroup}, {row, rows, group * kGroup, kGroup});
      }
    }
  }
};

template <class V, Type type, Form form>
struct Kernels {
  static constexpr bool kExists = true;
  static constexpr int kGroupStrips = V::kStrips;
  static constexpr GemmKernel kernel() { return Depthwise<V, type>::run; }
};

}  // namespace openwork::depthwise
