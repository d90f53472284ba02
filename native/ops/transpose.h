// Matrices of bytes or floats transposed: the channels of images moved. Tiles of 16 rows; few rows, as the three of a picture,
// are put together pixel by pixel.
#pragma once

#include "ops/byte_blocks.h"
#include "ops/image_arguments.h"

namespace openwork::ops {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kFewRows = 4;

// 16 rows of 64 bytes: in each quarter, as many rounds as an index has bits move one bit of the row into the column's place.
template <class V>
[[gnu::always_inline]] inline void transpose_quarters(typename V::Bytes (&m)[16]) {
  for (int round = 0; round < 4; ++round) {
    typename V::Bytes t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      t[2 * i] = m[i];
      t[2 * i + 1] = m[i + 8];
      V::zip_quarters(t[2 * i], t[2 * i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) m[i] = t[i];
  }
}

// Up to 16 rows and 64 columns of bytes.
template <class V>
void byte_tile(const uint8_t* x, int64_t x_stride, uint8_t* y, int64_t y_stride, int64_t rows, int64_t columns) {
  typename V::Bytes m[16];
  for (int i = 0; i < kTileRows; ++i) {
    const uint8_t* row = x + i * x_stride;
    m[i] = i >= rows ? V::set1_u8(0) : columns < kBlock ? V::load_bytes_part(row, static_cast<int>(columns)) : V::load_bytes(row);
  }
  transpose_quarters<V>(m);
  if (rows == kTileRows && columns == kBlock) {
    for (int i = 0; i < kTileRows; ++i) V::template store_rows<4>(y + i * y_stride, kTileRows * y_stride, m[i]);
    return;
  }
  alignas(64) uint8_t tile[kBlock * kTileRows];
  for (int i = 0; i < kTileRows; ++i) V::template store_rows<4>(tile + i * kTileRows, kTileRows * kTileRows, m[i]);
  for (int64_t c = 0; c < columns; ++c) __builtin_memcpy(y + c * y_stride, tile + c * kTileRows, static_cast<size_t>(rows));
}

// Up to 16 rows and 16 columns of floats; `put` stores a column of them.
template <class V, class Put>
[[gnu::always_inline]] inline void float_tile(const float* x, int64_t x_stride, int64_t rows, int64_t columns, const Put& put) {
  typename V::F32 m[16];
  for (int i = 0; i < kTileRows; ++i) m[i] = i < rows ? load_lanes<V>(x + i * x_stride, columns) : V::zero();
  V::transpose(m);
  for (int i = 0; i < columns; ++i) put(i, m[i]);
}

// The bytes that stay where groups of four become groups of two or three, of each 16.
template <class V>
typename V::Bytes kept_bytes(int64_t rows) {
  static constexpr uint8_t kTwo[16] = {0, 1, 4, 5, 8, 9, 12, 13}, kThree[16] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14};
  return V::window16(rows == 2 ? kTwo : kThree);
}

// 64 columns of two to four rows of bytes, column by column, to `y`; what lies up to 16 bytes behind them is overwritten.
template <class V>
[[gnu::always_inline]] inline void merge_bytes(typename V::Bytes (&m)[4], int64_t rows, const typename V::Bytes& kept,
                                               uint8_t* y) {
  V::zip_quarters(m[0], m[2]);
  V::zip_quarters(m[1], m[3]);
  V::zip_quarters(m[0], m[1]);
  V::zip_quarters(m[2], m[3]);
  if (rows == kFewRows) {
    for (int i = 0; i < 4; ++i) V::template store_rows<4>(y + 16 * i, 64, m[i]);
    return;
  }
  alignas(64) uint8_t four[4][64];
  for (int i = 0; i < 4; ++i) V::store_bytes(four[i], V::shuffle16(m[i], kept));
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i, y += 4 * rows) __builtin_memcpy(y, four[i % 4] + i / 4 * 16, 16);
}

// 16 columns of floats in the same way; up to 4 floats behind them are overwritten.
template <class V>
[[gnu::always_inline]] inline void merge_floats(typename V::F32 (&m)[4], int64_t rows, float* y) {
  V::interleave(m[0], m[2]);
  V::interleave(m[1], m[3]);
  V::interleave(m[0], m[1]);
  V::interleave(m[2], m[3]);
  alignas(64) float four[64];
  for (int i = 0; i < 4; ++i) V::store(four + 16 * i, m[i]);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i, y += rows) __builtin_memcpy(y, four + 4 * i, 16);
}

// merge(column, number of columns, to) of up to `step` columns each, which may write up to kFewRows columns behind them.
template <class T, int step, class Merge>
[[gnu::always_inline]] inline void each_merged(int64_t begin, int64_t end, int64_t rows, T* y, const Merge& merge) {
  for (int64_t c = begin; c < end; c += step) {
    // Behind the last columns other threads write.
    alignas(64) T last[step * kFewRows + 16];
    const int64_t left = end - c < step ? end - c : step;
    const bool inside = c + step + kFewRows <= end;
    merge(c, left, inside ? y + c * rows : last);
    if (!inside) __builtin_memcpy(y + c * rows, last, static_cast<size_t>(left * rows) * sizeof(T));
  }
}

template <class V>
void few_rows(const TransposeArgs& a, const void* from, void* to, int64_t begin, int64_t end) {
  const auto* bytes = static_cast<const uint8_t*>(from);
  const auto* floats = static_cast<const float*>(from);
  if (!a.y_bytes)
    return each_merged<float, 16>(begin, end, a.rows, static_cast<float*>(to), [&](int64_t c, int64_t left, float* y) {
      typename V::F32 m[4];
      for (int i = 0; i < 4; ++i) m[i] = i < a.rows ? load_lanes<V>(floats + i * a.columns + c, left) : V::zero();
      merge_floats<V>(m, a.rows, y);
    });
  const auto kept = kept_bytes<V>(a.rows);
  each_merged<uint8_t, 64>(begin, end, a.rows, static_cast<uint8_t*>(to), [&](int64_t c, int64_t left, uint8_t* y) {
    typename V::Bytes m[4];
    for (int i = 0; i < 4; ++i) {
      if (i >= a.rows) {
        m[i] = V::set1_u8(0);
      } else if (a.x_bytes) {
        const uint8_t* row = bytes + i * a.columns + c;
        m[i] = left < kBlock ? V::load_bytes_part(row, static_cast<int>(left)) : V::load_bytes(row);
      } else {
        typename V::F32 v[4];
        load_block<V>(floats + i * a.columns + c, left, v);
        m[i] = quantize_block<V>(v, a.quantizer);
      }
    }
    merge_bytes<V>(m, a.rows, kept, y);
  });
}

// The tiles that follow `unit` in its matrix, up to `end`: how many these are, and where their columns end.
struct TileRun {
  int64_t tiles, first, last;

  TileRun(const TransposeArgs& a, int64_t unit, int64_t end) : first(unit % a.column_tiles() * kTransposeTile) {
    const int64_t left = a.column_tiles() - unit % a.column_tiles();
    tiles = end - unit < left ? end - unit : left;
    last = first + tiles * kTransposeTile < a.columns ? first + tiles * kTransposeTile : a.columns;
  }
};

// The tile of columns [begin, end) and rows from `row` on of one matrix.
template <class V>
void transpose_tile(const TransposeArgs& a, const void* from, void* to, int64_t row, int64_t begin, int64_t end) {
  const int64_t rows = a.rows - row < kTileRows ? a.rows - row : kTileRows;
  if (a.x_bytes) {
    const auto* x = static_cast<const uint8_t*>(from) + row * a.columns;
    auto* y = static_cast<uint8_t*>(to) + row;
    for (int64_t c = begin; c < end; c += kBlock)
      byte_tile<V>(x + c, a.columns, y + c * a.rows, a.rows, rows, end - c < kBlock ? end - c : kBlock);
    return;
  }
  const auto* x = static_cast<const float*>(from) + row * a.columns;
  for (int64_t c = begin; c < end; c += kStripLanes) {
    const int64_t columns = end - c < kStripLanes ? end - c : kStripLanes;
    if (a.y_bytes) {
      auto* y = static_cast<uint8_t*>(to) + c * a.rows + row;
      float_tile<V>(x + c, a.columns, rows, columns, [&](int i, typename V::F32 v) {
        store_lanes<V>(y + i * a.rows, openwork::quantize<V>(v, a.quantizer), rows);
      });
    } else {
      auto* y = static_cast<float*>(to) + c * a.rows + row;
      float_tile<V>(x + c, a.columns, rows, columns, [&](int i, typename V::F32 v) { store_lanes<V>(y + i * a.rows, v, rows); });
    }
  }
}

template <class V>
void transpose_matrix(const TransposeArgs& a, int64_t begin, int64_t end) {
  const int64_t across = a.column_tiles(), tiles = across * a.row_tiles(), elements = a.rows * a.columns;
  const bool few = a.rows > 1 && a.rows <= kFewRows;
  for (int64_t unit = begin; unit < end;) {
    const int64_t at = unit / tiles * elements, row = unit % tiles / across * kTransposeTile;
    const void* x = static_cast<const uint8_t*>(a.x) + at * (a.x_bytes ? 1 : 4);
    void* y = static_cast<uint8_t*>(a.y) + at * (a.y_bytes ? 1 : 4);
    const TileRun run(a, unit, few ? end : unit + 1);
    unit += run.tiles;
    if (few) {
      few_rows<V>(a, x, y, run.first, run.last);
      continue;
    }
    const int64_t end_row = a.rows - row < kTransposeTile ? a.rows : row + kTransposeTile;
    for (int64_t r = row; r < end_row; r += kTileRows) transpose_tile<V>(a, x, y, r, run.first, run.last);
  }
}

}  // namespace openwork::ops
