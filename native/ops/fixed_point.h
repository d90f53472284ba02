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
inline constexpr float kFixedLow = -200.0f;      // an exponent of 2 whose power no 16 bits hold

inline bool fixed_point_allows(int64_t keys, int64_t size, float scale) {
  return keys <= 65536 && size <= 4096 && scale >= 1.0f / kFixedScale && scale <= kFixedScale;
}

// `count` rows of `size` floats, which begin where `row` says, or at x, `stride` apart, where it is null. Passed by value:
// behind a reference the compiler reads every member again after each store.
struct Rows {
  const float* x;
  int64_t stride, count, size;
  const float* const* row = nullptr;
  [[gnu::always_inline]] const float* operator[](int64_t i) const { return row ? row[i] : x + i * stride; }
};

// Sums of squares in four chains: one would take as long as all the rest of packing.
template <class V>
struct Squares {
  typename V::F32 sum[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  [[gnu::always_inline]] void add(int64_t i, typename V::F32 v) { sum[i % 4] = V::fma(v, v, sum[i % 4]); }
  [[gnu::always_inline]] typename V::F32 total() const { return V::add(V::add(sum[0], sum[2]), V::add(sum[1], sum[3])); }
};

template <class V>
struct FixedUnit {
  typename V::F32 unit, inverse;
  [[gnu::always_inline]] FixedUnit(typename V::F32 square, float full) {
    const auto norm = V::max(V::set1(kFixedLeast), V::sqrt(square));
    unit = V::mul(norm, V::set1(1.0f / full));
    inverse = V::div(V::set1(full), norm);
  }
  [[gnu::always_inline]] typename V::I32 quantize(typename V::F32 x) const { return V::round_i32(V::mul(x, inverse)); }
};

// Sixteen rows into room [size][16]; returns the sums of their squares.
template <class V>
[[gnu::always_inline]] inline typename V::F32 transpose_rows(Rows x, int64_t first, float* room) {
  Squares<V> squares;
  for (int64_t d = 0; d < x.size; d += kStripLanes) {
    typename V::F32 block[kStripLanes];
    if (first + kStripLanes <= x.count && d + kStripLanes <= x.size)
#pragma GCC unroll 16
      for (int i = 0; i < kStripLanes; ++i) block[i] = V::load(x[first + i] + d);
    else
      for (int i = 0; i < kStripLanes; ++i)
        block[i] = first + i < x.count ? load_lanes<V>(x[first + i] + d, x.size - d) : V::zero();
    V::transpose(block);
#pragma GCC unroll 16
    for (int i = 0; i < kStripLanes; ++i) {
      squares.add(i, block[i]);
      V::store(room + (d + i) * kStripLanes, block[i]);
    }
  }
  return squares.total();
}

// [strip of 16 rows][pairs of size][16], and the unit of each row. `room` holds 16 rows padded to whole strips. False where a
// row is not for fixed point.
template <class V>
bool pack_rows(Rows x, float* room, int32_t* to, float* unit) {
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

// Sixteen columns into room [count][16], so that rows far apart are read once; returns the largest sum of squares of a block
// of the column in each lane, or one that is not allowed.
template <class V>
[[gnu::always_inline]] inline typename V::F32 copy_columns(Rows x, int64_t d, float* room) {
  auto most = V::zero();
  for (int64_t first = 0; first < x.count; first += kFixedBlock) {
    const int64_t end = first + kFixedBlock < x.count ? first + kFixedBlock : x.count;
    const auto copied = [&](int64_t j) {
      const auto v = load_lanes<V>(x[j] + d, x.size - d);
      V::store(room + j * kStripLanes, v);
      return v;
    };
    Squares<V> squares;
    int64_t j = first;
    for (; j + 4 <= end; j += 4)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) squares.add(i, copied(j + i));
#pragma GCC unroll 4
    for (int i = 0; i < 3; ++i)
      if (j + i < end) squares.add(i, copied(j + i));
    const auto square = squares.total();
    if (!V::all_at_most(square, kFixedMost)) return square;
    most = V::max(most, square);
  }
  return most;
}

// [strip of 16 columns][pairs of rows][16], and the unit of each column. `room` holds 16 columns. False where a column is not
// for fixed point.
template <class V>
bool pack_columns(Rows x, float* room, int32_t* to, float* unit) {
  for (int64_t d = 0; d < x.size; d += kStripLanes) {
    const auto square = copy_columns<V>(x, d, room);
    if (!V::all_at_most(square, kFixedMost)) return false;
    const FixedUnit<V> column(square, kFixedColumn);
    V::store(unit + d, column.unit);
    const auto quantized = [&](int64_t j) { return column.quantize(V::load(room + j * kStripLanes)); };
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
