// The driver of products over windows: cuts a block into tiles and hands their sums to the epilogue. Included only by the
// instruction sets' own translation units.
#pragma once

#include <utility>

#include "kernels/finish.h"
#include "kernels/windows/tile.h"

namespace openwork::windows {

template <class Sum>
using TileFn = void (*)(const TileArgs<Sum>&);

// Tiles of 1 to `rows` rows, so that any number of rows is cut into tiles of nearly equal height.
template <class V, Type type, Form form, class Heights = std::make_integer_sequence<int, Tiling<V, form>::kMaxRows>>
struct Tiles;
template <class V, Type type, Form form, int... below>
struct Tiles<V, type, form, std::integer_sequence<int, below...>> {
  TileFn<typename Element<V, type>::Sum> tile[sizeof...(below)] = {Tile<V, type, form, below + 1>::run...};
  auto find(int rows) const { return tile[rows - 1]; }
};

// Rows cut into tiles of nearly equal height.
struct RowTiles {
  int64_t begin, rows, count;
  RowTiles(int64_t row_begin, int64_t row_end, int most)
      : begin(row_begin), rows(row_end - row_begin), count((rows + most - 1) / most) {}
  int64_t first(int64_t tile) const { return begin + rows * tile / count; }
  int height(int64_t tile) const { return static_cast<int>(first(tile + 1) - first(tile)); }
};

// Calls f(tiles, band) for the bands of a block.
template <class F>
[[gnu::always_inline]] inline void for_each_band(const GemmArgs& a, const Block& block, int most, const F& f) {
  const RowBand whole{block.row_end, 0, a.weights.runs};
  const RowBand* band = a.bands ? a.bands : &whole;
  for (int64_t row = block.row_begin; row < block.row_end; row = band++->row_end) f(RowTiles(row, band->row_end, most), *band);
}

template <class V, Type type, Form form>
struct Gemm {
  using T = Tiling<V, form>;
  using Sum = typename Element<V, type>::Sum;
  static constexpr Tiles<V, type, form> kTiles{};

  // Where a tile asks for a quarter of the next group's weights, so that they come from L3 while this group's are at work: 6
  // to 13% of MiniLM. Asking for all of it at once, before the tile, fills the miss buffers and gains nothing at k = 1536.
  [[gnu::always_inline]] static const uint8_t* ahead(const PackedView& w, int64_t group, int64_t tile) {
    const int64_t next = group + 1 < w.groups ? group + 1 : group;
    return w.data + w.group_data[next] + (w.group_data[next + 1] - w.group_data[next]) / 4 * (tile % 4);
  }

  // What the tiles of a group have in common.
  static TileArgs<Sum> group_args(const GemmArgs& a, int64_t group, Sum* sums) {
    const PackedView& w = a.weights;
    return {nullptr, a.x_stride, a.row_bytes, w.data + w.group_data[group], w.advance + w.group_step[group],
            w.run_steps + group * w.runs, w.runs, nullptr, a.start + group * T::kChannels, sums};
  }
  // The same for the runs of a band.
  [[gnu::always_inline]] static TileArgs<Sum> band_args(TileArgs<Sum> args, const RowBand& band) {
    int64_t skipped = 0;
    for (int64_t run = 0; run < band.run_begin; ++run) skipped += args.run_steps[run];
    args.weights += skipped * T::kStepBytes;
    args.advance += skipped;
    args.run_steps += band.run_begin;
    args.runs = band.run_end - band.run_begin;
    return args;
  }
  // x: of the block's first row and the first run of `args`.
  [[gnu::always_inline]] static void tile(const GemmArgs& a, const Block& block, const RowTiles& tiles, int64_t i, int64_t group,
                                          const RowBand& band, TileArgs<Sum>& args) {
    args.x = a.x + band.run_begin * a.x_stride + (tiles.first(i) - block.row_begin);
    args.ahead = ahead(a.weights, group, i);
    kTiles.find(tiles.height(i))(args);
  }

  static void natural(const GemmArgs& a, const Block& block) {
    alignas(64) Sum sums[T::kMaxRows * T::kChannels];
    const auto finish = choose_finish<V, Sum>(a);
    for (int64_t group = block.group_begin; group < block.group_end; ++group) {
      const TileArgs<Sum> whole = group_args(a, group, sums);
      for_each_band(a, block, T::kMaxRows, [&](const RowTiles& tiles, const RowBand& band) {
        TileArgs<Sum> args = band_args(whole, band);
        for (int64_t i = 0; i < tiles.count; ++i) {
          tile(a, block, tiles, i, group, band, args);
          finish(a, {sums, T::kChannels}, {tiles.first(i), tiles.height(i), group * T::kChannels, T::kChannels});
        }
      });
    }
  }

  // Groups whose channels were put in another order: the sums of a whole span are put back before the epilogue.
  static void ordered(const GemmArgs& a, const Block& block) {
    static_assert(kSpanChannels % T::kChannels == 0);
    alignas(64) Sum packed[T::kMaxRows * T::kChannels];
    alignas(64) Sum sums[T::kMaxRows * kSpanChannels];
    const auto finish = choose_finish<V, Sum>(a);
    for (int64_t span = block.group_begin; span < block.group_end; span += a.weights.span) {
      const int64_t end = span + a.weights.span < block.group_end ? span + a.weights.span : block.group_end;
      for_each_band(a, block, T::kMaxRows, [&](const RowTiles& tiles, const RowBand& band) {
        for (int64_t i = 0; i < tiles.count; ++i) {
          const int height = tiles.height(i);
          for (int64_t group = span; group < end; ++group) {
            TileArgs<Sum> args = band_args(group_args(a, group, packed), band);
            tile(a, block, tiles, i, group, band, args);
            const int32_t* to = a.weights.order + group * T::kChannels;
            for (int r = 0; r < height; ++r)
              for (int c = 0; c < T::kChannels; ++c) sums[r * kSpanChannels + to[c]] = packed[r * T::kChannels + c];
          }
          finish(a, {sums, kSpanChannels}, {tiles.first(i), height, span * T::kChannels, (end - span) * T::kChannels});
        }
      });
    }
  }

  static void run(const GemmArgs& a, const Block& block) { a.weights.order ? ordered(a, block) : natural(a, block); }
};

template <class V, Type type, Form form>
struct Kernels {
  static constexpr bool kExists = exists<V, type, form>();
  static constexpr int kGroupStrips = Tiling<V, form>::kStrips;
  static constexpr GemmKernel kernel() { return Gemm<V, type, form>::run; }
};

}  // namespace openwork::windows
