// What is done to the sums of a tile before they are stored: docs/arithmetic.md, "Epilogue". Included only by the instruction
// sets' own translation units: everything here is a template over V.
//
// The sums come from a buffer in L1: that costs a store and a load a vector, against k / 4 products, and keeps one copy of the
// epilogue for all tiles. The usual epilogues are fused here; every other one goes through finish_general.h.
#pragma once

#include <type_traits>

#include "kernels/finish_general.h"
#include "kernels/finish_rounded.h"

namespace openwork {

enum class Added { none, f32, u8 };

template <class V, class Sum, Activation activation, Stored output, Added added>
struct Finish {
  using F32 = typename V::F32;
  using I32 = typename V::I32;
  static constexpr bool kBytes = output == Stored::u8;
  // Rows of one strip at a time: bytes are packed by fours, and more than one vector of floats is one too many for AVX2.
  static constexpr int kTall = V::kStrips == 1 && kBytes ? 4 : 1;
  // Values are in units of the output already.
  static constexpr bool kScaled = kBytes && activation == Activation::none;
  // Below 2^31 in magnitude, so that the packing to bytes clamps them: see PreparedEpilogue.
  static constexpr bool kBounded = kScaled && std::is_same_v<Sum, int32_t> && added != Added::f32;

  using Y = std::conditional_t<output == Stored::f32, float, std::conditional_t<output == Stored::bf16, uint16_t, uint8_t>>;
  using Residual = std::conditional_t<added == Added::u8, uint8_t, float>;

  // `rows` rows of `strips` strips, up to four vectors, and the next ones a turn later. Everything is read before the rows:
  // the bytes that are stored may be anything to the compiler, the arguments included.
  template <int rows, int strips, bool whole>
  struct Turns {
    static constexpr int kVectors = rows * strips;
    // The chain of one vector is long: AVX-512's registers hold the work on four. AVX2's hold that on one.
    static constexpr bool kTogether = V::kStrips > 1;

    F32 scale[strips], bias[strips], factor[strips];
    typename V::Bytes low, high;
    const Sum* sums;
    const Residual* residual;
    Y* y;
    int64_t sums_stride, residual_stride, stride;
    int32_t zero_point;
    int lanes;  // of one strip where it is not whole
    ActivationFunction function;

    [[gnu::always_inline]] Turns(const GemmArgs& a, const Sums<Sum>& from, int64_t row, int64_t channel)
        : sums(from.at), residual(static_cast<const Residual*>(a.residual)), y(static_cast<Y*>(a.y) + row * a.y_stride + channel),
          sums_stride(from.stride), residual_stride(a.residual_stride), stride(a.y_stride), zero_point(a.epilogue.y_zero_point),
          lanes(static_cast<int>(a.n - channel)), function(a.epilogue.activation) {
      const Epilogue& e = a.epilogue;
      if constexpr (added != Added::none) residual += row * residual_stride + channel;
#pragma GCC unroll 4
      for (int s = 0; s < strips; ++s) {
        const int64_t at = channel + s * kStripLanes;
        scale[s] = V::load(e.scale + at);
        bias[s] = V::load(e.bias + at);
        if constexpr (kScaled && added != Added::none) factor[s] = V::load(e.residual_factor + at);
        if constexpr (kBytes && !kScaled) factor[s] = V::load(e.inverse_scale + at);
      }
      if constexpr (kScaled) {
        low = V::template repeat_rows<rows>(e.low + channel);
        high = V::template repeat_rows<rows>(e.high + channel);
      }
    }

    [[gnu::always_inline]] F32 first(int i) const {
      return V::fma(load_sum<V>(sums + i / strips * sums_stride + i % strips * kStripLanes), scale[i % strips], bias[i % strips]);
    }
    [[gnu::always_inline]] F32 with_residual(int i, F32 v) const {
      if constexpr (added != Added::none) {
        constexpr Stored type = added == Added::u8 ? Stored::u8 : Stored::f32;
        const auto other = load_lanes<V, type, whole>(residual, i / strips * residual_stride + i % strips * kStripLanes, lanes);
        v = kScaled ? V::fma(other, factor[i % strips], v) : V::add(v, other);
      }
      return v;
    }
    [[gnu::always_inline]] I32 rounded(int i, F32 v) const {
      if constexpr (!kScaled) v = V::mul(v, factor[i % strips]);
      if constexpr (!kBounded) v = V::min(V::set1(static_cast<float>(255 - zero_point)), v);
      return V::round_i32(v);
    }
    [[gnu::always_inline]] void store(const I32 (&q)[4]) {
      auto bytes = V::pack_u8(q, zero_point);
      if constexpr (kScaled) bytes = V::min_u8(V::max_u8(bytes, low), high);
      if constexpr (kVectors == 4)
        V::template store_rows<rows>(reinterpret_cast<uint8_t*>(y), stride, bytes);
      else
        V::store_bytes_part(reinterpret_cast<uint8_t*>(y), bytes, whole ? strips * kStripLanes : lanes);
    }
    [[gnu::always_inline]] void put(int i, F32 v, I32 (&q)[4]) {
      if constexpr (kBytes)
        q[i] = rounded(i, v);
      else
        store_lanes<V, output, whole>(y, i / strips * stride + i % strips * kStripLanes, v, lanes);
    }

    [[gnu::always_inline]] void turn() {
      constexpr int n = kTogether ? kVectors : 1;
      I32 q[4] = {V::zero_i32(), V::zero_i32(), V::zero_i32(), V::zero_i32()};
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; i += n) {
        F32 v[n];
#pragma GCC unroll 4
        for (int j = 0; j < n; ++j) v[j] = first(i + j);
        activate_each<V, activation, n>(v, function);
#pragma GCC unroll 4
        for (int j = 0; j < n; ++j) put(i + j, with_residual(i + j, v[j]), q);
      }
      if constexpr (kBytes) store(q);
      sums += rows * sums_stride;
      y += rows * stride;
      if constexpr (added != Added::none) residual += rows * residual_stride;
    }
  };

  // As many rows as `rows` divides; returns their number.
  template <int rows, int strips, bool whole>
  [[gnu::always_inline]] static int columns(const GemmArgs& a, const Sums<Sum>& sums, int64_t row, int count, int64_t channel) {
    Turns<rows, strips, whole> turns(a, sums, row, channel);
    int r = 0;
    for (; r + rows <= count; r += rows) turns.turn();
    return r;
  }

  template <int rows, int strips>
  [[gnu::always_inline]] static void whole_columns(const GemmArgs& a, const Sums<Sum>& sums, const Part& part, int64_t channel) {
    const int done = columns<rows, strips, true>(a, sums, part.row, part.rows, channel);
    if (rows > 1 && done < part.rows)
      columns<1, strips, true>(a, {sums.at + done * sums.stride, sums.stride}, part.row + done, part.rows - done, channel);
  }

  static constexpr int kPairRows = kBytes ? 2 : 1;

  // Any part: some groups of channels, of which the last ones may be missing.
  [[gnu::noinline]] static void run_any(const GemmArgs& a, const Sums<Sum>& sums, const Part& part) {
    const int64_t end = a.n < part.channel + part.channels ? a.n : part.channel + part.channels;
    int64_t channel = part.channel;
    Sums<Sum> from = sums;
    const auto left = [&](int strips) { return end - channel >= strips * kStripLanes; };
    const auto next = [&](int strips) { channel += strips * kStripLanes, from.at += strips * kStripLanes; };
    if constexpr (V::kStrips > 1) {
      for (; left(4); next(4)) whole_columns<1, 4>(a, from, part, channel);
      for (; left(2); next(2)) whole_columns<kPairRows, 2>(a, from, part, channel);
    }
    for (; left(1); next(1)) whole_columns<kTall, 1>(a, from, part, channel);
    if (end > channel) columns<1, 1, false>(a, from, part.row, part.rows, channel);
  }

  // The usual part is one whole group, whose way is short: a tile has few vectors.
  static void run(const GemmArgs& a, const Sums<Sum>& sums, const Part& part) {
    const bool whole = a.n - part.channel >= part.channels;
    if constexpr (V::kStrips > 1) {
      if (whole && part.channels == 2 * kStripLanes) return whole_columns<kPairRows, 2>(a, sums, part, part.channel);
      if (whole && part.channels == 4 * kStripLanes) return whole_columns<1, 4>(a, sums, part, part.channel);
    } else if (whole && part.channels == kStripLanes) {
      return whole_columns<kTall, 1>(a, sums, part, part.channel);
    }
    run_any(a, sums, part);
  }
};

// The one of these activations, or null.
template <class V, class Sum, Stored output, Added added, Activation... kinds>
FinishFn<Sum> one_of(Activation kind) {
  FinishFn<Sum> found = nullptr;
  ((kind == kinds ? void(found = Finish<V, Sum, kinds, output, added>::run) : void()), ...);
  return found;
}

template <class V, class Sum>
FinishFn<Sum> fused_to_u8(const Epilogue& e, bool plain, bool floats) {
  using enum Activation;
  const Activation kind = e.activation.kind;
  if (e.scaled && floats) return one_of<V, Sum, Stored::u8, Added::f32, none>(kind);
  if (e.scaled && (e.bounded || !std::is_same_v<Sum, int32_t>))
    return plain                      ? one_of<V, Sum, Stored::u8, Added::none, none>(kind)
           : e.residual == Stored::u8 ? one_of<V, Sum, Stored::u8, Added::u8, none>(kind)
                                      : nullptr;
  if (plain) return one_of<V, Sum, Stored::u8, Added::none, gelu, gelu_tanh, silu, hard_swish>(kind);
  if (floats && !e.activation_last) return one_of<V, Sum, Stored::u8, Added::f32, relu, gelu>(kind);
  return nullptr;
}

template <class V, class Sum>
FinishFn<Sum> fused_to_f32(const Epilogue& e, bool plain, bool floats) {
  using enum Activation;
  const Activation kind = e.activation.kind;
  if (plain) return one_of<V, Sum, Stored::f32, Added::none, none, relu, gelu, gelu_tanh, silu>(kind);
  if (floats && (kind == none || !e.activation_last)) return one_of<V, Sum, Stored::f32, Added::f32, none, relu, gelu>(kind);
  return nullptr;
}

// The fused epilogue, or null where there is none: then the general one runs, at two to three times the cost.
template <class V, class Sum>
FinishFn<Sum> fused_finish(const GemmArgs& a) {
  const Epilogue& e = a.epilogue;
  if (e.rounded) return e.scaled && e.output == Stored::u8 && !e.lookup ? FinishRounded<V, Sum>::run : nullptr;
  const bool plain = !a.residual, floats = a.residual && e.residual == Stored::f32;
  if (e.output == Stored::u8) return fused_to_u8<V, Sum>(e, plain, floats);
  if (e.output == Stored::f32) return fused_to_f32<V, Sum>(e, plain, floats);
  if (e.output == Stored::bf16 && plain)
    return one_of<V, Sum, Stored::bf16, Added::none, Activation::none, Activation::relu>(e.activation.kind);
  return nullptr;
}

template <class V, class Sum>
FinishFn<Sum> finish_without_lookup(const GemmArgs& a) {
  const FinishFn<Sum> fused = fused_finish<V, Sum>(a);
  return fused ? fused : finish_general<V, Sum>;
}

// The bytes are still in L1.
template <class V, class Sum>
void finish_with_lookup(const GemmArgs& a, const Sums<Sum>& sums, const Part& part) {
  finish_without_lookup<V, Sum>(a)(a, sums, part);
  look_up<V>(a, part);
}

template <class V, class Sum>
FinishFn<Sum> choose_finish(const GemmArgs& a) {
  return a.epilogue.lookup ? finish_with_lookup<V, Sum> : finish_without_lookup<V, Sum>(a);
}

}  // namespace openwork
