// Any epilogue: in stages over a piece of the tile in a buffer, one choice a stage. Included only by the instruction sets' own
// translation units: everything here is a template over V.
#pragma once

#include "kernels/gemm.h"

namespace openwork {

// A tile's sums, INT32 or binary32: row r, channel c at sums[r * stride + c], whole strips.
template <class Sum>
struct Sums {
  const Sum* at;
  int64_t stride;
};

// The part of the output that they are: rows and channels of y, the first channel a multiple of 16.
struct Part {
  int64_t row;
  int rows;
  int64_t channel, channels;
};

template <class Sum>
using FinishFn = void (*)(const GemmArgs&, const Sums<Sum>&, const Part&);

template <class V>
[[gnu::always_inline]] inline typename V::F32 load_sum(const int32_t* p) {
  return V::to_f32(V::load_i32(p));
}
template <class V>
[[gnu::always_inline]] inline typename V::F32 load_sum(const float* p) {
  return V::load(p);
}

// The first `lanes` of v, or all of it, as element `at` of y.
template <class V, Stored type, bool whole>
[[gnu::always_inline]] inline void store_lanes(void* y, int64_t at, typename V::F32 v, int lanes) {
  if constexpr (type == Stored::bf16) {
    auto* p = static_cast<uint16_t*>(y) + at;
    whole ? V::store_bf16(p, v) : V::store_bf16_part(p, v, lanes);
  } else {
    auto* p = static_cast<float*>(y) + at;
    whole ? V::store(p, v) : V::store_part(p, v, lanes);
  }
}

// The first `lanes` of a residual, or all of it, from element `at` on: as the model has it, its zero point included.
template <class V, Stored type, bool whole>
[[gnu::always_inline]] inline typename V::F32 load_lanes(const void* residual, int64_t at, int lanes) {
  if constexpr (type == Stored::u8) {
    const auto* p = static_cast<const uint8_t*>(residual) + at;
    return V::to_f32(whole ? V::load_u8(p) : V::load_u8_part(p, lanes));
  } else if constexpr (type == Stored::bf16) {
    const auto* p = static_cast<const uint16_t*>(residual) + at;
    return whole ? V::load_bf16(p) : V::load_bf16_part(p, lanes);
  } else {
    const auto* p = static_cast<const float*>(residual) + at;
    return whole ? V::load(p) : V::load_part(p, lanes);
  }
}

// Rows of the output whose values stand in `values`, row by row, in whole strips.
inline constexpr int kPieceRows = 16;
inline constexpr int kPieceStrips = 4;

struct Piece {
  int64_t row, channel;
  int rows;
  int lanes;  // of one strip that is not whole
  float* values;
};

template <class V, int strips, bool whole>
struct GeneralFinish {
  static constexpr int kChannels = strips * kStripLanes;

  // body(row, strip, the vector's values) of every vector.
  template <class Body>
  [[gnu::always_inline]] static void each(const Piece& p, const Body& body) {
    float* values = p.values;
    for (int r = 0; r < p.rows; ++r, values += kChannels)
#pragma GCC unroll 4
      for (int s = 0; s < strips; ++s) body(r, s, values + s * kStripLanes);
  }
  // The channels' own numbers.
  struct Numbers {
    typename V::F32 of[strips];
    [[gnu::always_inline]] explicit Numbers(const float* p) {
#pragma GCC unroll 4
      for (int s = 0; s < strips; ++s) of[s] = V::load(p + s * kStripLanes);
    }
  };

  template <class Sum>
  static void scale(const Epilogue& e, const Sum* sums, int64_t stride, const Piece& p) {
    const Numbers scales(e.scale + p.channel), biases(e.bias + p.channel);
    each(p, [&](int r, int s, float* values) {
      V::store(values, V::fma(load_sum<V>(sums + r * stride + s * kStripLanes), scales.of[s], biases.of[s]));
    });
  }

  // To u8 and back. The ends are integers, so it is the same whether they bound before or behind the rounding.
  static void round(const Epilogue& e, const Piece& p) {
    const auto low = V::set1(static_cast<float>(-e.sum_zero_point)), high = V::set1(static_cast<float>(255 - e.sum_zero_point));
    const Numbers factors(e.sum_factor + p.channel);
    each(p, [&](int, int s, float* values) {
      const auto q = V::rint(V::min(V::max(V::load(values), low), high));
      V::store(values, e.scaled ? q : V::mul(q, factors.of[s]));
    });
  }

  [[gnu::always_inline]] static typename V::F32 added(const Epilogue& e, int64_t channel, typename V::F32 value,
                                                      typename V::F32 other, typename V::F32 factor) {
    if (!e.rounded) return V::fma(other, factor, value);
    if (!e.scaled) return V::add(value, V::mul(other, factor));
    return V::fma(value, V::load(e.sum_factor + channel), V::fma(other, factor, V::load(e.sum_bias + channel)));
  }

  template <Stored type>
  [[gnu::always_inline]] static void add(const GemmArgs& a, const Piece& p) {
    const Numbers factors(a.epilogue.residual_factor + p.channel);
    const auto zero_point = V::set1(static_cast<float>(a.epilogue.residual_zero_point));
    const int64_t at = p.row * a.residual_stride + p.channel;
    each(p, [&](int r, int s, float* values) {
      auto other = load_lanes<V, type, whole>(a.residual, at + r * a.residual_stride + s * kStripLanes, p.lanes);
      if constexpr (type == Stored::u8) other = V::sub(other, zero_point);
      V::store(values, added(a.epilogue, p.channel + s * kStripLanes, V::load(values), other, factors.of[s]));
    });
  }
  static void add_residual(const GemmArgs& a, const Piece& p) {
    if (a.epilogue.residual == Stored::u8) return add<Stored::u8>(a, p);
    if (a.epilogue.residual == Stored::bf16) return add<Stored::bf16>(a, p);
    add<Stored::f32>(a, p);
  }

  // A row at a time.
  static void store_bytes(const GemmArgs& a, const Piece& p) {
    const Epilogue& e = a.epilogue;
    const Numbers inverses(e.inverse_scale + p.channel);
    const auto low = V::load_bytes(e.low + p.channel), high = V::load_bytes(e.high + p.channel);
    const auto flip = V::set1_u8(e.output == Stored::s8 ? 0x80 : 0);
    const int32_t zero_point = e.y_zero_point;
    const int64_t stride = a.y_stride;
    auto* y = static_cast<uint8_t*>(a.y) + p.row * stride + p.channel;
    for (int r = 0; r < p.rows; ++r, y += stride) {
      typename V::I32 q[kPieceStrips];
#pragma GCC unroll 4
      for (int s = 0; s < kPieceStrips; ++s)
        q[s] = s < strips ? quantize_high<V>(V::load(p.values + (r * strips + s % strips) * kStripLanes), inverses.of[s % strips], zero_point)
                          : V::zero_i32();
      const auto bytes = V::bit_xor(V::min_u8(V::max_u8(V::pack_u8(q, zero_point), low), high), flip);
      V::store_bytes_part(y, bytes, whole ? kChannels : p.lanes);
    }
  }

  template <Stored type>
  [[gnu::always_inline]] static void store_floats(const GemmArgs& a, const Piece& p) {
    const int64_t at = p.row * a.y_stride + p.channel;
    each(p, [&](int r, int s, float* values) {
      store_lanes<V, type, whole>(a.y, at + r * a.y_stride + s * kStripLanes, V::load(values), p.lanes);
    });
  }
  static void store(const GemmArgs& a, const Piece& p) {
    if (a.epilogue.output == Stored::f32) return store_floats<Stored::f32>(a, p);
    if (a.epilogue.output == Stored::bf16) return store_floats<Stored::bf16>(a, p);
    store_bytes(a, p);
  }

  static void activate_piece(const ActivationFunction& f, const Piece& p) {
    int64_t vectors = int64_t{p.rows} * strips;
    for (; vectors % kActivationStep; ++vectors) V::store(p.values + vectors * kStripLanes, V::zero());
    activate<V>(f, p.values, vectors);
  }

  template <class Sum>
  static void run(const GemmArgs& a, const Sums<Sum>& sums, const Part& part) {
    alignas(64) float values[kPieceRows * kChannels + kActivationStep * kStripLanes];
    const Epilogue& e = a.epilogue;
    for (int r = 0; r < part.rows; r += kPieceRows) {
      const int rows = part.rows - r < kPieceRows ? part.rows - r : kPieceRows;
      const Piece piece{part.row + r, part.channel, rows, static_cast<int>(a.n - part.channel), values};
      scale<Sum>(e, sums.at + r * sums.stride, sums.stride, piece);
      if (!e.activation_last) activate_piece(e.activation, piece);
      if (e.rounded) round(e, piece);
      if (a.residual) add_residual(a, piece);
      if (e.activation_last) activate_piece(e.activation, piece);
      store(a, piece);
    }
  }
};

template <class V, class Sum>
void finish_general(const GemmArgs& a, const Sums<Sum>& sums, const Part& part) {
  const int64_t end = a.n < part.channel + part.channels ? a.n : part.channel + part.channels;
  Sums<Sum> from = sums;
  Part piece = part;
  const auto next = [&](int strips) { piece.channel += strips * kStripLanes, from.at += strips * kStripLanes; };
  for (; end - piece.channel >= 4 * kStripLanes; next(4)) GeneralFinish<V, 4, true>::template run<Sum>(a, from, piece);
  for (; end - piece.channel >= 2 * kStripLanes; next(2)) GeneralFinish<V, 2, true>::template run<Sum>(a, from, piece);
  for (; end - piece.channel >= kStripLanes; next(1)) GeneralFinish<V, 1, true>::template run<Sum>(a, from, piece);
  if (end > piece.channel) GeneralFinish<V, 1, false>::template run<Sum>(a, from, piece);
}

// Each stored byte becomes the table's: the one that the table holds for the u8, flipped where an s8 is stored.
template <class V>
void look_up(const GemmArgs& a, const Part& part) {
  const int64_t end = a.n < part.channel + part.channels ? a.n : part.channel + part.channels;
  const auto flip = V::set1_u8(a.epilogue.output == Stored::s8 ? 0x80 : 0);
  for (int r = 0; r < part.rows; ++r) {
    auto* y = static_cast<uint8_t*>(a.y) + (part.row + r) * a.y_stride;
    for (int64_t c = part.channel; c < end; c += 64) {
      const int left = static_cast<int>(end - c < 64 ? end - c : 64);
      const auto found = V::lookup256(V::bit_xor(V::load_bytes_part(y + c, left), flip), a.epilogue.lookup);
      V::store_bytes_part(y + c, V::bit_xor(found, flip), left);
    }
  }
}

}  // namespace openwork
