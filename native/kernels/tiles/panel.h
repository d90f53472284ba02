// The panel of activations that a matrix unit multiplies (cut.h): filled from the rows that pointers lead to, and what strips with
// one mask keep of it gathered. Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/tiles/cut.h"

namespace openwork::tiles {

// Up to 32 rows of a block as one tile or two of nearly equal height.
struct PanelRows {
  int64_t begin;  // of the output
  int height[2];

  [[gnu::always_inline]] int count() const { return height[0] + height[1]; }
  [[gnu::always_inline]] int tiles() const { return height[1] > 0 ? 2 : 1; }
  // Where row r stands in a line of the panel.
  [[gnu::always_inline]] int64_t at(int r) const { return r < height[0] ? r * kLineBytes : kTileBytes + (r - height[0]) * kLineBytes; }
};

// The rows of a block in panels of nearly equal height.
struct BlockPanels {
  int64_t begin, rows, count;

  [[gnu::always_inline]] explicit BlockPanels(const Block& block)
      : begin(block.row_begin), rows(block.row_end - block.row_begin), count((rows + kPanelRows - 1) / kPanelRows) {}
  [[gnu::always_inline]] PanelRows panel(int64_t p) const {
    const int64_t first = rows * p / count, end = rows * (p + 1) / count;
    const int height = static_cast<int>(end - first);
    const int upper = height > kTileRows ? (height + 1) / 2 : height;
    return {begin + first, {upper, height - upper}};
  }
};

template <class V>
struct Panel {
  using Bytes = typename V::Bytes;

  // One row whose runs lie anywhere, each after the other, to whole lines; `row` holds them and a line more.
  static void fill_row(const GemmArgs& a, int64_t number, uint8_t* row, uint8_t* to) {
    const PackedView& w = a.weights;
    const int64_t count = lines(w.runs * w.run_bytes);
    uint8_t* next = row;
    for (int64_t run = 0; run < w.runs; ++run, next += w.run_bytes) {
      const uint8_t* from = a.x[run * a.x_stride + number];
      for (int64_t at = 0; at < w.run_bytes; at += kLineBytes) V::store_bytes(next + at, V::load_bytes(from + at));
    }
    // What was read behind the last run may be NaN, which a weight of zero does not take back.
    V::store_bytes(next, V::load_bytes_part(next, 0));
    for (int64_t line = 0; line < count; ++line) V::store_bytes(to + line * kPanelLineBytes, V::load_bytes(row + line * kLineBytes));
  }
  // One row whose runs are whole lines, or are one run.
  [[gnu::always_inline]] static void fill_lines(const GemmArgs& a, int64_t number, uint8_t* to) {
    const PackedView& w = a.weights;
    for (int64_t run = 0; run < w.runs; ++run) {
      const uint8_t* from = a.x[run * a.x_stride + number];
      int64_t at = 0;
      for (; at + kLineBytes <= w.run_bytes; at += kLineBytes, to += kPanelLineBytes) V::store_bytes(to, V::load_bytes(from + at));
      if (at < w.run_bytes) V::store_bytes(to, V::load_bytes_part(from + at, static_cast<int>(w.run_bytes - at)));
    }
  }
  static void fill(const GemmArgs& a, const Block& block, const PanelRows& rows, uint8_t* row, uint8_t* panel) {
    const bool whole = a.weights.runs == 1 || a.weights.run_bytes % kLineBytes == 0;
    for (int r = 0; r < rows.count(); ++r) {
      const int64_t number = rows.begin + r - block.row_begin;
      whole ? fill_lines(a, number, panel + rows.at(r)) : fill_row(a, number, row, panel + rows.at(r));
    }
  }

  template <int sources>
  [[gnu::always_inline]] static void gather_rows(const Gather& g, const uint8_t* panel, int height, uint8_t* to) {
    Bytes index[sources];
    const uint8_t* from[sources];
#pragma GCC unroll 4
    for (int s = 0; s < sources; ++s) index[s] = V::load_bytes(g.index[s]), from[s] = panel + g.line[s] * kPanelLineBytes;
    for (int64_t at = 0; at < height * kLineBytes; at += kLineBytes) {
      Bytes v = V::pick64(g.mask[0], V::load_bytes(from[0] + at), index[0]);
#pragma GCC unroll 4
      for (int s = 1; s < sources; ++s) v = V::pick64_into(v, g.mask[s], V::load_bytes(from[s] + at), index[s]);
      V::store_bytes(to + at, v);
    }
  }
  // The rows of one tile: `panel` and `to` are where its part of a line begins.
  static void gather(const Gather& g, const uint8_t* panel, int height, uint8_t* to) {
    switch (g.sources) {
      case 1: return gather_rows<1>(g, panel, height, to);
      case 2: return gather_rows<2>(g, panel, height, to);
      case 3: return gather_rows<3>(g, panel, height, to);
      default: return gather_rows<4>(g, panel, height, to);
    }
  }
};

}  // namespace openwork::tiles
