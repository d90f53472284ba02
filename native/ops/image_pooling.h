// The largest element or the mean of windows of pixels, channels last: 64 channels at a time.
#pragma once

#include "ops/byte_blocks.h"
#include "ops/image_arguments.h"

namespace openwork::ops {

// One window at some channels: where its first tap lies in x, and how many there are.
struct PoolWindow {
  int64_t at, rows, columns;
};

// body(window, channel of the part, number of channels left in it, place in y, numbers counted) for each window of the units.
template <class Body>
[[gnu::always_inline]] inline void each_window(const PoolArgs& a, int64_t begin, int64_t end, const Body& body) {
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t line = unit / a.parts, channel = unit % a.parts * a.part_channels;
    const int64_t left = a.channels - channel < a.part_channels ? a.channels - channel : a.part_channels;
    const PoolSpan& rows = a.rows[line % a.out_height];
    const int64_t row = (line / a.out_height * a.height + rows.first) * a.width;
    for (int64_t q = 0; q < a.out_width; ++q) {
      const PoolSpan& columns = a.columns[q];
      body(PoolWindow{(row + columns.first) * a.channels + channel, rows.taps, columns.taps}, left,
           (line * a.out_width + q) * a.y_stride + channel, rows.counted * columns.counted);
    }
  }
}

// body.template operator()<n>(first channel) with blocks of n * 64 channels, of which the last may be shorter.
template <class Body>
[[gnu::always_inline]] inline void each_block(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; channels - c > 3 * kBlock; c += 4 * kBlock) body.template operator()<4>(c);
  for (; c < channels; c += kBlock) body.template operator()<1>(c);
}

template <class V, int n>
[[gnu::always_inline]] inline void largest_bytes(const PoolArgs& a, const PoolWindow& w, int64_t c, int64_t left, uint8_t* y) {
  typename V::Bytes most[n];
  for (auto& m : most) m = V::set1_u8(0);
  const uint8_t* row = static_cast<const uint8_t*>(a.x) + w.at + c;
  for (int64_t r = 0; r < w.rows; ++r, row += a.row_step) {
    const uint8_t* tap = row;
    for (int64_t s = 0; s < w.columns; ++s, tap += a.column_step)
#pragma GCC unroll 4
      for (int i = 0; i < n; ++i) most[i] = V::max_u8(most[i], V::load_bytes(tap + i * kBlock));
  }
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) store_block<V>(y + c + i * kBlock, most[i], left - i * kBlock);
}

// A NaN is passed over: `max` takes its second operand then.
template <class V>
[[gnu::always_inline]] inline void largest_floats(const PoolArgs& a, const PoolWindow& w, int64_t c, int64_t left, float* y) {
  typename V::F32 most[4];
  for (auto& m : most) m = V::set1(-__builtin_inff());
  const float* row = static_cast<const float*>(a.x) + w.at + c;
  for (int64_t r = 0; r < w.rows; ++r, row += a.row_step) {
    const float* tap = row;
    for (int64_t s = 0; s < w.columns; ++s, tap += a.column_step)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        if (left_of(left, i) > 0) most[i] = V::max(V::load(tap + i * kStripLanes), most[i]);
  }
  store_block<V>(y + c, most, left);
}

template <class V>
void max_pool(const PoolArgs& a, int64_t begin, int64_t end) {
  each_window(a, begin, end, [&](const PoolWindow& w, int64_t channels, int64_t at, int64_t) {
    if (a.x_bytes) {
      auto* y = static_cast<uint8_t*>(a.y) + at;
      each_block(channels, [&]<int n>(int64_t c) { largest_bytes<V, n>(a, w, c, channels - c, y); });
    } else {
      auto* y = static_cast<float*>(a.y) + at;
      for (int64_t c = 0; c < channels; c += kBlock) largest_floats<V>(a, w, c, channels - c, y);
    }
  });
}

template <class V>
[[gnu::always_inline]] inline void add_sums(const typename V::Sums& sums, typename V::I32 (&total)[4]) {
  typename V::I32 wide[4];
  V::widen(sums, wide);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) total[i] = V::add(total[i], wide[i]);
}

// The exact sums of n blocks over a window, in 16 bits as far as these hold them.
template <class V, int n>
[[gnu::always_inline]] inline void sum_bytes(const PoolArgs& a, const PoolWindow& w, int64_t c, typename V::I32 (&total)[n][4]) {
  typename V::Sums sums[n];
  for (auto& s : sums) s = V::zero_sums();
  for (auto& block : total)
    for (auto& t : block) t = V::zero_i32();
  int64_t held = 0;
  const uint8_t* row = static_cast<const uint8_t*>(a.x) + w.at + c;
  for (int64_t r = 0; r < w.rows; ++r, row += a.row_step) {
    const uint8_t* tap = row;
    for (int64_t s = 0; s < w.columns; ++s, tap += a.column_step) {
      if (held++ == kMostBytesSummed) {
        for (int i = 0; i < n; ++i) add_sums<V>(sums[i], total[i]), sums[i] = V::zero_sums();
        held = 1;
      }
#pragma GCC unroll 4
      for (int i = 0; i < n; ++i) V::add_bytes(sums[i], V::load_bytes(tap + i * kBlock));
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) add_sums<V>(sums[i], total[i]);
}

template <class V>
[[gnu::always_inline]] inline void store_mean(const PoolArgs& a, const typename V::F32 (&v)[4], int64_t at, int64_t left) {
  if (a.y_bytes)
    store_block<V>(static_cast<uint8_t*>(a.y) + at, quantize_block<V>(v, a.quantizer), left);
  else
    store_block<V>(static_cast<float*>(a.y) + at, v, left);
}

template <class V, int n>
[[gnu::always_inline]] inline void mean_of_bytes(const PoolArgs& a, const PoolWindow& w, int64_t c, int64_t left, int64_t at,
                                                 float factor) {
  typename V::I32 total[n][4];
  sum_bytes<V, n>(a, w, c, total);
  const auto offset = V::set1_i32(static_cast<int32_t>(-a.x_zero_point * w.rows * w.columns));
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) {
    typename V::F32 v[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) v[j] = V::mul(V::to_f32(V::add(total[i][j], offset)), V::set1(factor));
    store_mean<V>(a, v, at + c + i * kBlock, left - i * kBlock);
  }
}

template <class V>
[[gnu::always_inline]] inline void mean_of_floats(const PoolArgs& a, const PoolWindow& w, int64_t c, int64_t left, int64_t at,
                                                  float count) {
  typename V::F32 v[4];
  for (auto& sum : v) sum = V::zero();
  const float* row = static_cast<const float*>(a.x) + w.at + c;
  for (int64_t r = 0; r < w.rows; ++r, row += a.row_step) {
    const float* tap = row;
    for (int64_t s = 0; s < w.columns; ++s, tap += a.column_step)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        if (left_of(left, i) > 0) v[i] = V::add(v[i], V::load(tap + i * kStripLanes));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) v[i] = V::div(v[i], V::set1(count));
  store_mean<V>(a, v, at + c, left);
}

template <class V>
void average_pool(const PoolArgs& a, int64_t begin, int64_t end) {
  each_window(a, begin, end, [&](const PoolWindow& w, int64_t channels, int64_t at, int64_t counted) {
    const auto count = static_cast<float>(counted);
    if (a.x_bytes) {
      const float factor = a.x_scale / count;
      each_block(channels, [&]<int n>(int64_t c) { mean_of_bytes<V, n>(a, w, c, channels - c, at, factor); });
    } else {
      for (int64_t c = 0; c < channels; c += kBlock) mean_of_floats<V>(a, w, c, channels - c, at, count);
    }
  });
}

}  // namespace openwork::ops
