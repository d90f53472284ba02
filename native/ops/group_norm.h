// Group norm of images with channels last, to float, BF16 or u8: each lane is a channel, so a group may begin at any of them.
#pragma once

#include "ops/arguments.h"
#include "ops/float_tile.h"
#include "ops/image_arguments.h"

namespace openwork::ops {

// A range of whole groups of one image.
struct GroupRange {
  const float* x;      // its first pixel, from the first channel on
  const float* shift;  // of its first channel, or null
  int64_t channel, channels, y;
};

inline GroupRange range_of_unit(const GroupNormArgs& a, int64_t unit) {
  const int64_t image = unit / a.parts, channel = unit % a.parts * a.part_channels;
  const int64_t left = a.channels - channel;
  return {a.x + image * a.pixels * a.x_stride + channel, a.shift ? a.shift + image * a.channels + channel : nullptr, channel,
          left < a.part_channels ? left : a.part_channels, image * a.pixels * a.y_stride + channel};
}

// The number of one pixel and strip that is normalized.
template <class V, bool shifted>
[[gnu::always_inline]] inline typename V::F32 pixel_of(const float* p, [[maybe_unused]] typename V::F32 shift, int64_t left) {
  const auto v = load_lanes<V>(p, left);
  if constexpr (shifted) return V::add(v, shift);
  else return v;
}

// For one strip the sum over all pixels that `step(sum, pixel)` makes, in the order of docs/arithmetic.md.
template <class V, class Step>
[[gnu::always_inline]] inline typename V::F32 sum_pixels(int64_t pixels, const Step& step) {
  auto total = V::zero();
  for (int64_t begin = 0; begin < pixels; begin += kPixelBlock) {
    const int64_t end = pixels - begin < kPixelBlock ? pixels : begin + kPixelBlock;
    typename V::F32 sum[4];
    for (auto& s : sum) s = V::zero();
    int64_t p = begin;
    for (; p + 4 <= end; p += 4)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sum[i] = step(sum[i], p + i);
    for (int i = 0; p + i < end; ++i) sum[i] = step(sum[i], p + i);
    total = V::add(total, V::add(V::add(sum[0], sum[2]), V::add(sum[1], sum[3])));
  }
  return total;
}

// The channels' sums become the mean of their group, for each of its channels.
inline void mean_of_groups(float* sums, int64_t channels, int64_t group, int64_t pixels) {
  const auto count = static_cast<float>(group * pixels);
  for (int64_t c = 0; c < channels; c += group) {
    float sum = 0.0f;
    for (int64_t i = c; i < c + group; ++i) sum += sums[i];
    const float mean = sum / count;
    for (int64_t i = c; i < c + group; ++i) sums[i] = mean;
  }
}

template <class V, bool shifted>
struct GroupNorm {
  using F32 = typename V::F32;

  // each(first channel of a strip, lanes left, its shift).
  template <class Each>
  [[gnu::always_inline]] static void each_strip(const GroupRange& r, const Each& each) {
    for (int64_t c = 0; c < r.channels; c += kStripLanes) {
      const int64_t left = r.channels - c;
      each(c, left, shifted ? load_lanes<V>(r.shift + c, left) : V::zero());
    }
  }

  static void statistics(const GroupNormArgs& a, const GroupRange& r, float* mean, float* rstd) {
    each_strip(r, [&](int64_t c, int64_t left, F32 shift) {
      const float* x = r.x + c;
      V::store(mean + c, sum_pixels<V>(a.pixels, [&](F32 sum, int64_t p) {
                 return V::add(sum, pixel_of<V, shifted>(x + p * a.x_stride, shift, left));
               }));
    });
    mean_of_groups(mean, r.channels, a.group, a.pixels);
    each_strip(r, [&](int64_t c, int64_t left, F32 shift) {
      const float* x = r.x + c;
      const F32 m = V::load(mean + c);
      V::store(rstd + c, sum_pixels<V>(a.pixels, [&](F32 sum, int64_t p) {
                 const F32 d = V::sub(pixel_of<V, shifted>(x + p * a.x_stride, shift, left), m);
                 return V::fma(d, d, sum);
               }));
    });
    mean_of_groups(rstd, r.channels, a.group, a.pixels);
    for (int64_t c = 0; c < r.channels; ++c) rstd[c] = 1.0f / __builtin_sqrtf(rstd[c] + a.epsilon);
  }

  [[gnu::always_inline]] static void store(const GroupNormArgs& a, int64_t at, F32 v, int64_t left) {
    switch (a.stored) {
      case Stored::f32: return store_lanes<V>(static_cast<float*>(a.y) + at, v, left);
      case Stored::bf16: {
        auto* y = static_cast<uint16_t*>(a.y) + at;
        return left >= kStripLanes ? V::store_bf16(y, v) : V::store_bf16_part(y, v, static_cast<int>(left));
      }
      default: return store_lanes<V>(static_cast<uint8_t*>(a.y) + at, openwork::quantize<V>(v, a.quantizer), left);
    }
  }

  template <Activation kind>
  static void write(const GroupNormArgs& a, const GroupRange& r, const float* mean, const float* rstd) {
    each_strip(r, [&](int64_t c, int64_t left, F32 shift) {
      const F32 m = V::load(mean + c), scale = V::load(rstd + c);
      const F32 gamma = load_lanes<V>(a.gamma + r.channel + c, left), beta = load_lanes<V>(a.beta + r.channel + c, left);
      const auto pixels = [&]<int n>(int64_t p) {
        F32 v[n];
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) {
          const F32 d = V::sub(pixel_of<V, shifted>(r.x + (p + i) * a.x_stride + c, shift, left), m);
          v[i] = V::fma(V::mul(d, scale), gamma, beta);
        }
        activate_each<V, kind, n>(v, a.activation);
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) store(a, r.y + (p + i) * a.y_stride + c, v[i], left);
      };
      cover<4>(0, a.pixels, pixels);
    });
  }

  static void run(const GroupNormArgs& a, int64_t unit) {
    const GroupRange r = range_of_unit(a, unit);
    float *mean = a.scratch, *rstd = a.scratch + strips_of(a.part_channels) * kStripLanes;
    statistics(a, r, mean, rstd);
    with_activation(a.activation.kind, [&]<Activation kind>() { write<kind>(a, r, mean, rstd); });
  }
};

template <class V>
void group_norm(const GroupNormArgs& a, int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) a.shift ? GroupNorm<V, true>::run(a, unit) : GroupNorm<V, false>::run(a, unit);
}

}  // namespace openwork::ops
