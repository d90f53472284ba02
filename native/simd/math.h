// Elementary functions over a vector of 16 floats, in the exact order of operations that docs/arithmetic.md states, so
// that every instruction set returns the same bits. The coefficients below are the normative ones.
#pragma once

#include <cstdint>

namespace openwork {

// Phi(t) - 0.5 = t * P(u), u = 0.08 t^2 - 1, |t| <= 5: weighted minimax fit, error of Phi below 1.6e-7.
inline constexpr int kGeluDegree = 12;
inline constexpr float kGelu[kGeluDegree + 1] = {
    0x1.218356p-3f, -0x1.1feefep-4f, 0x1.a60e5ep-5f, -0x1.4b4e4cp-5f, 0x1.019304p-5f, -0x1.7d3bcep-6f, 0x1.0cbbb4p-6f,
    -0x1.6dd544p-7f, 0x1.a41e84p-8f, -0x1.6000f2p-9f, 0x1.c39f1ep-10f, -0x1.a6e864p-10f, 0x1.3f25fep-11f};
inline constexpr float kGeluClamp = 5.0f;
inline constexpr float kGeluSquareScale = 0.08f;

// exp(r), |r| <= ln(2) / 2: minimax fit of the relative error, 2e-9 before rounding of the coefficients.
inline constexpr int kExpDegree = 6;
inline constexpr float kExp[kExpDegree + 1] = {0x1.000000p+0f, 0x1.000000p+0f, 0x1.fffffap-2f, 0x1.5553fep-3f,
                                               0x1.5558bcp-5f, 0x1.127400p-7f, 0x1.6ab27ep-10f};
inline constexpr float kExpLow = -87.0f;
inline constexpr float kExpHigh = 88.0f;
inline constexpr float kLog2e = 0x1.715476p+0f;
// ln 2 in two parts: the high one has 9 significant bits, so that n * kLn2High is exact for |n| <= 127.
inline constexpr float kLn2High = 0x1.63p-1f;
inline constexpr float kLn2Low = -0x1.bd0106p-13f;

template <class V, int degree>
[[gnu::always_inline]] inline typename V::F32 horner(const float (&coefficients)[degree + 1], typename V::F32 x) {
  typename V::F32 p = V::set1(coefficients[degree]);
#pragma GCC unroll 16
  for (int i = degree - 1; i >= 0; --i) p = V::fma(p, x, V::set1(coefficients[i]));
  return p;
}

template <class V>
[[gnu::always_inline]] inline typename V::F32 gelu(typename V::F32 v) {
  const auto t = V::min(V::max(v, V::set1(-kGeluClamp)), V::set1(kGeluClamp));
  const auto u = V::fma(V::mul(t, t), V::set1(kGeluSquareScale), V::set1(-1.0f));
  const auto phi = V::fma(t, horner<V, kGeluDegree>(kGelu, u), V::set1(0.5f));
  return V::mul(v, phi);
}

template <class V>
[[gnu::always_inline]] inline typename V::F32 relu(typename V::F32 v) {
  return V::max(v, V::zero());
}

template <class V>
[[gnu::always_inline]] inline typename V::F32 exp(typename V::F32 v) {
  const auto t = V::min(V::max(v, V::set1(kExpLow)), V::set1(kExpHigh));
  const auto n = V::rint(V::mul(t, V::set1(kLog2e)));
  auto r = V::fma(n, V::set1(-kLn2High), t);
  r = V::fma(n, V::set1(-kLn2Low), r);
  return V::add_exponent(horner<V, kExpDegree>(kExp, r), V::to_i32(n));
}

// The quantizer of one tensor.
struct Quantizer {
  float inverse_scale = 1.0f;
  int32_t zero_point = 0;
};

// The same numbers as docs/arithmetic.md's order gives, in fewer instructions: only the upper end is clamped before the
// conversion, where NaN passes (`min` returns its second operand), and what the conversion cannot hold becomes the least
// integer, which the lower end takes up.
template <class V>
[[gnu::always_inline]] inline typename V::I32 quantize(typename V::F32 v, typename V::F32 inverse_scale, int32_t zero_point) {
  const auto t = V::min(V::set1(static_cast<float>(255 - zero_point)), V::mul(v, inverse_scale));
  return V::max(V::add(V::round_i32(t), V::set1_i32(zero_point)), V::zero_i32());
}

template <class V>
[[gnu::always_inline]] inline typename V::I32 quantize(typename V::F32 v, const Quantizer& q) {
  return quantize<V>(v, V::set1(q.inverse_scale), q.zero_point);
}

}  // namespace openwork
