// Float tensors as 16-bit fixed point with a scale a row or a column, in pairs along the axis of reduction.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"

namespace openwork::ops {

// docs/arithmetic.md, "Attention", derives these: no sum of products leaves INT32 and no number 16 bits.
inline constexpr float kFixedRow = 32760.0f;     // the Euclidean norm of a row
inline constexpr float kFixedColumn = 11580.0f;  // the largest norm of a block of a column
inline constexpr float kFixedLeast = 0x1p-60f;   // norms below it are taken for it
inline constexpr float kFixedMost = 0x1p80f;     // of a sum of squares
inline constexpr float kFixedScale = 0x1p32f;

inline bool fixed_point_allows(int64_t keys, int64_t size, float scale) {
  return keys <= 65536 && size <= 4096 && scale >= 1.0f / kFixedScale && scale <= kFixedScale;
}

// `count` rows of `size` floats, those that `chosen` names, or one after the other where it is null.
struct Rows {
  const float* x;
  int64_t stride, count, size;
  const int64_t* chosen = nullptr;
  const float* operator[](int64_t i) const { return x + (chosen ? chosen[i] : i) * stride; }
};

template <class V>
struct FixedUnit {
  typename V::F32 unit, inverse;
  [[gnu::always_inline]] FixedUnit(typename V::F32 square, float full) {
    const auto norm = V::max(V::set1(kFixedLeast), V::sqrt(square));
    unit = V::div(norm, V::set1(full));
    inverse = V::div(V::set1(full), norm);
  }
  [[gnu::always_inline]] typename V::I32 quantize(typename V::F32 x) const { return V::round_i32(V::mul(x, inverse)); }
};

// Sixteen rows into room [size][16]; returns the sums of their squares.
template <class V>
[[gnu::always_inline]] inline typename V::F32 transpose_rows(const Rows& x, int64_t first, float* room) {
  auto square = V::zero();
  for (int64_t d = 0; d < x.size; d += kStripLanes) {
    typename V::F32 block[kStripLanes];
    for (int i = 0; i < kStripLanes; ++i)
      block[i] = first + i < x.count ? load_lanes<V>(x[first + i] + d, x.size - d) : V::zero();
    V::transpose(block);
    for (int i = 0; i < kStripLanes; ++i) {
      square = V::fma(block[i], block[i], square);
      V::store(room + (d + i) * kStripLanes, block[i]);
    }
  }
  return square;
}

// [strip of 16 rows][pairs of size][16], and the unit of each row. `room` holds 16 rows padded to whole strips. False where a
// row is not for fixed point.
template <class V>
bool pack_rows(const Rows& x, float* room, int32_t* to, float* unit) {
  for (int64_t first = 0; first < x.count; first += kStripLanes) {
    const auto square = transpose_rows<V>(x, first, room);
    if (!V::all_at_most(square, kFixedMost)) return false;
    const FixedUnit<V> row(square, kFixedRow);
    V::store(unit + first, row.unit);
    for (int64_t d = 0; d < x.size; d += 2, to += kStripLanes) {
      const float* at = room + d * kStripLanes;
      V::store_i32(to, V::pair(row.quantize(V::load(at)), row.quantize(V::load(at + kStripLanes))));
    }
  }
  return true;
}

// The largest sum of squares of a block of the column in each lane, or more than allowed.
template <class V>
[[gnu::always_inline]] inline typename V::F32 column_squares(const Rows& x, int64_t d) {
  auto most = V::zero();
  for (int64_t first = 0; first < x.count; first += kFixedBlock) {
    const int64_t end = first + kFixedBlock < x.count ? first + kFixedBlock : x.count;
    auto square = V::zero();
    for (int64_t j = first; j < end; ++j) {
      const auto v = load_lanes<V>(x[j] + d, x.size - d);
      square = V::fma(v, v, square);
    }
    if (!V::all_at_most(square, kFixedMost)) return square;
    most = V::max(most, square);
  }
  return most;
}

// [strip of 16 columns][pairs of rows][16], and the unit of each column. False where a column is not for fixed point.
template <class V>
bool pack_columns(const Rows& x, int32_t* to, float* unit) {
  for (int64_t d = 0; d < x.size; d += kStripLanes) {
    const auto square = column_squares<V>(x, d);
    if (!V::all_at_most(square, kFixedMost)) return false;
    const FixedUnit<V> column(square, kFixedColumn);
    V::store(unit + d, column.unit);
    const auto quantized = [&](int64_t j) { return column.quantize(load_lanes<V>(x[j] + d, x.size - d)); };
    int64_t j = 0;
    for (; j + 2 <= x.count; j += 2, to += kStripLanes) V::store_i32(to, V::pair(quantized(j), quantized(j + 1)));
    if (j < x.count) {
      V::store_i32(to, V::pair(quantized(j), V::zero_i32()));
      to += kStripLanes;
    }
  }
  return true;
}

}  // namespace openwork::ops
