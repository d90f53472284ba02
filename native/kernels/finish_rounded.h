// Sums that are rounded to u8 before a u8 residual is added, and then to u8 again: the residual blocks of networks whose every
// value has a quantizer (docs/arithmetic.md, "Epilogue"). Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/finish_general.h"

namespace openwork {

template <class V, class Sum>
struct FinishRounded {
  using F32 = typename V::F32;

  // `rows` rows of `strips` strips are four vectors, which one vector of bytes holds.
  template <int rows, int strips>
  struct Turns {
    F32 scale[strips], bias[strips], factor[strips], sum_factor[strips], sum_bias[strips];
    typename V::Bytes low, high;
    F32 sum_low, sum_high;
    const GemmArgs& args;
    int32_t zero_point;

    [[gnu::always_inline]] Turns(const GemmArgs& a, int64_t channel)
        : low(V::template repeat_rows<rows>(a.epilogue.low + channel)), high(V::template repeat_rows<rows>(a.epilogue.high + channel)),
          sum_low(V::set1(static_cast<float>(-a.epilogue.sum_zero_point))),
          sum_high(V::set1(static_cast<float>(255 - a.epilogue.sum_zero_point))), args(a), zero_point(a.epilogue.y_zero_point) {
      const Epilogue& e = a.epilogue;
#pragma GCC unroll 4
      for (int s = 0; s < strips; ++s) {
        const int64_t at = channel + s * kStripLanes;
        scale[s] = V::load(e.scale + at), bias[s] = V::load(e.bias + at);
        factor[s] = V::load(e.residual_factor + at);
        sum_factor[s] = V::load(e.sum_factor + at), sum_bias[s] = V::load(e.sum_bias + at);
      }
    }

    [[gnu::always_inline]] typename V::I32 one(const Sum* sums, F32 other, int s) const {
      const F32 v = V::fma(load_sum<V>(sums), scale[s], bias[s]);
      const F32 q = V::rint(V::min(V::max(v, sum_low), sum_high));
      return V::round_i32(V::fma(q, sum_factor[s], V::fma(other, factor[s], sum_bias[s])));
    }

    // Whole strips, or `lanes` channels of a single one.
    template <bool whole>
    [[gnu::always_inline]] void turn(const Sum* sums, int64_t stride, const uint8_t* residual, uint8_t* y, int lanes) const {
      typename V::I32 q[4] = {V::zero_i32(), V::zero_i32(), V::zero_i32(), V::zero_i32()};
#pragma GCC unroll 4
      for (int i = 0; i < rows * strips; ++i) {
        const int r = i / strips, s = i % strips;
        const auto other = load_lanes<V, Stored::u8, whole>(residual, r * args.residual_stride + s * kStripLanes, lanes);
        q[i] = one(sums + r * stride + s * kStripLanes, other, s);
      }
      const auto bytes = V::min_u8(V::max_u8(V::pack_u8(q, zero_point), low), high);
      if constexpr (rows * strips == 4)
        V::template store_rows<rows>(y, args.y_stride, bytes);
      else
        V::store_bytes_part(y, bytes, whole ? strips * kStripLanes : lanes);
    }
  };

  template <int rows, int strips, bool whole>
  [[gnu::always_inline]] static int columns(const GemmArgs& a, const Sums<Sum>& sums, const Part& part, int from, int64_t channel) {
    const Turns<rows, strips> turns(a, channel);
    const int lanes = static_cast<int>(a.n - channel);
    int r = from;
    for (; r + rows <= part.rows; r += rows) {
      const int64_t row = part.row + r;
      turns.template turn<whole>(sums.at + r * sums.stride, sums.stride,
                                 static_cast<const uint8_t*>(a.residual) + row * a.residual_stride + channel,
                                 static_cast<uint8_t*>(a.y) + row * a.y_stride + channel, lanes);
    }
    return r;
  }

  template <int rows, int strips>
  [[gnu::always_inline]] static void whole_columns(const GemmArgs& a, const Sums<Sum>& sums, const Part& part, int64_t channel) {
    const int done = columns<rows, strips, true>(a, sums, part, 0, channel);
    if (rows > 1 && done < part.rows) columns<1, strips, true>(a, sums, part, done, channel);
  }

  static void run(const GemmArgs& a, const Sums<Sum>& sums, const Part& part) {
    const int64_t end = a.n < part.channel + part.channels ? a.n : part.channel + part.channels;
    int64_t channel = part.channel;
    Sums<Sum> from = sums;
    const auto left = [&](int strips) { return end - channel >= strips * kStripLanes; };
    const auto next = [&](int strips) { channel += strips * kStripLanes, from.at += strips * kStripLanes; };
    if constexpr (V::kStrips > 1) {
      for (; left(4); next(4)) whole_columns<1, 4>(a, from, part, channel);
      for (; left(2); next(2)) whole_columns<2, 2>(a, from, part, channel);
    }
    for (; left(1); next(1)) whole_columns<4, 1>(a, from, part, channel);
    if (end > channel) columns<1, 1, false>(a, from, part, 0, channel);
  }
};

}  // namespace openwork
