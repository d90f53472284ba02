// Elementary functions over a vector of 16 floats, in the exact order of operations that docs/arithmetic.md states, so
// that every instruction set returns the same bits. The coefficients below are the normative ones.
#pragma once

#include <cstdint>

namespace openwork {

// a * Phi(-a), a >= 0, Phi the normal distribution function: a quartic in a for each of the 16 values of rint(2.75 a), the
// last one (a > 5.27) zero; kGelu[j][i] is the coefficient of a^j in piece i. Minimax fits, each coefficient rounded
// to binary32 before the lower ones were fitted again; the first piece has the exact value and slope at 0. Error below 3e-7
// before the last piece, 3.6e-7 where that begins.
inline constexpr int kGeluDegree = 4;
alignas(64) inline constexpr float kGelu[kGeluDegree + 1][16] = {
    {0x0p+0f, -0x1.3579bp-14f, -0x1.1825b8p-8f, -0x1.b67886p-6f, -0x1.823e8ap-5f, 0x1.153e22p-5f, 0x1.25a0acp-2f,
     0x1.37eacap-1f, 0x1.971774p-1f, 0x1.7cabbp-1f, 0x1.0ff19p-1f, 0x1.337a12p-2f, 0x1.194edcp-3f, 0x1.a6e922p-5f,
     0x1.0816eap-6f, 0x0p+0f},
    {0x1p-1f, 0x1.00947p-1f, 0x1.0f4d2ap-1f, 0x1.41b004p-1f, 0x1.648196p-1f, 0x1.01f896p-1f, -0x1.e43674p-14f,
     -0x1.18fbe8p-1f, -0x1.a6d80ep-1f, -0x1.86073ep-1f, -0x1.085846p-1f, -0x1.184a0ep-2f, -0x1.dfaf66p-4f, -0x1.517f2ap-5f,
     -0x1.8b5c68p-7f, 0x0p+0f},
    {-0x1.98865cp-2f, -0x1.9f368cp-2f, -0x1.ec162ep-2f, -0x1.49661ap-1f, -0x1.74ff2cp-1f, -0x1.1d0edap-1f, -0x1.6faf9p-3f,
     0x1.5e2a5cp-3f, 0x1.4dc7d2p-2f, 0x1.2f4018p-2f, 0x1.84745cp-3f, 0x1.813b06p-4f, 0x1.33cc22p-5f, 0x1.94f8bcp-7f,
     0x1.bcac26p-9f, 0x0p+0f},
    {0x1.7406fp-13f, 0x1.1b4ad6p-6f, 0x1.b2bb84p-4f, 0x1.d0846p-3f, 0x1.18d3eep-2f, 0x1.a5e6e6p-3f, 0x1.48f26cp-4f,
     -0x1.3ca8fap-6f, -0x1.da2a48p-5f, -0x1.a7bd36p-5f, -0x1.ff0a2cp-6f, -0x1.d8d982p-7f, -0x1.603c96p-8f,
     -0x1.b0e7c8p-10f, -0x1.bd45e2p-12f, 0x0p+0f},
    {0x1.0bfa96p-4f, 0x1.8744a6p-5f, 0x1.ea24bp-8f, -0x1.af7fbap-6f, -0x1.28fa1cp-5f, -0x1.ab174cp-6f, -0x1.52a46ep-7f,
     0x1.395cb8p-12f, 0x1.fee8d8p-9f, 0x1.c089eep-9f, 0x1.fb86f2p-10f, 0x1.b52c8ep-11f, 0x1.2f34fcp-12f, 0x1.5bca6ap-14f,
     0x1.4ee73ep-16f, 0x0p+0f}};
// The same of GELU's tanh approximation: a / (1 + exp(2 sqrt(2 / pi) (a + 0.044715 a^3))). Error below 3.4e-7.
alignas(64) inline constexpr float kGeluTanh[kGeluDegree + 1][16] = {
    {0x0p+0f, -0x1.3b796ep-14f, -0x1.1a6ca2p-8f, -0x1.b01ee6p-6f, -0x1.6fb142p-5f, 0x1.124d14p-5f, 0x1.17d078p-2f,
     0x1.2f383p-1f, 0x1.9bab92p-1f, 0x1.8f46bp-1f, 0x1.1e9966p-1f, 0x1.320f2cp-2f, 0x1.e36828p-4f, 0x1.177c4cp-5f,
     0x1.d38706p-8f, 0x0p+0f},
    {0x1p-1f, 0x1.00975ap-1f, 0x1.0f70aap-1f, 0x1.40f13cp-1f, 0x1.60b8d8p-1f, 0x1.0142fep-1f, 0x1.951bd6p-6f,
     -0x1.08ef9ep-1f, -0x1.aa1fd4p-1f, -0x1.9ba726p-1f, -0x1.1996p-1f, -0x1.1a8e12p-2f, -0x1.a1b01ap-4f,
     -0x1.c40e96p-6f, -0x1.62837cp-8f, 0x0p+0f},
    {-0x1.988668p-2f, -0x1.9f58a2p-2f, -0x1.ecf218p-2f, -0x1.48788cp-1f, -0x1.7073bp-1f, -0x1.1b257ap-1f,
     -0x1.905594p-3f, 0x1.344be8p-3f, 0x1.4df792p-2f, 0x1.4170bcp-2f, 0x1.a18c58p-3f, 0x1.88bb28p-4f,
     0x1.0f48cep-5f, 0x1.1292eap-7f, 0x1.93941ap-10f, 0x0p+0f},
    {0x1.7c7b36p-13f, 0x1.2104a2p-6f, 0x1.b7e978p-4f, 0x1.cf6482p-3f, 0x1.146cc8p-2f, 0x1.a1183cp-3f,
     0x1.5a3ebap-4f, -0x1.c1cb7cp-7f, -0x1.d558dcp-5f, -0x1.c259ccp-5f, -0x1.14c1eep-5f, -0x1.e6e21cp-7f,
     -0x1.39e4dep-8f, -0x1.28dedcp-10f, -0x1.98b8c4p-13f, 0x0p+0f},
    {0x1.0d3a4p-4f, 0x1.86ca3ap-5f, 0x1.c8c96ap-8f, -0x1.b03276p-6f, -0x1.232fbep-5f, -0x1.a40cdp-6f,
     -0x1.5f908ep-7f, -0x1.091a06p-12f, 0x1.f28684p-9f, 0x1.dd5456p-9f, 0x1.149eap-9f, 0x1.c6263cp-11f,
     0x1.10eddcp-12f, 0x1.e20e02p-15f, 0x1.36b06ap-17f, 0x0p+0f}};
inline constexpr float kGeluSteps = 0x1.6p+1f;  // pieces per unit: 2.75
inline constexpr float kGeluClamp = 0x1.6p+2f;  // 5.5, in the last piece
// Added to a number below 2^22 it leaves the number's nearest integer in the low bits.
inline constexpr float kGeluRounder = 0x1.8p+23f;

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

// gelu(v) = max(v, 0) - |v| Phi(-|v|), by one of the two tables. The tables stay in registers, and their lookups go to other ports than the products;
// n vectors at once, as the chain of one is four times as long as its share of the ports.
template <class V, int n>
[[gnu::always_inline]] inline void gelu_each(const float (&table)[kGeluDegree + 1][16], typename V::F32 (&v)[n]) {
  typename V::F32 a[n], p[n];
  typename V::I32 piece[n];
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) a[i] = V::min_magnitude(v[i], V::set1(kGeluClamp));
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) piece[i] = V::bits(V::fma(a[i], V::set1(kGeluSteps), V::set1(kGeluRounder)));
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) p[i] = V::lookup16(V::load(table[kGeluDegree]), piece[i]);
#pragma GCC unroll 4
  for (int j = kGeluDegree - 1; j >= 0; --j)
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) p[i] = V::fma(p[i], a[i], V::lookup16(V::load(table[j]), piece[i]));
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) v[i] = V::sub(V::max(V::zero(), v[i]), p[i]);
}

template <class V>
[[gnu::always_inline]] inline typename V::F32 gelu(typename V::F32 v) {
  typename V::F32 one[1] = {v};
  gelu_each<V>(kGelu, one);
  return one[0];
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

// 32767 * 2^f, |f| <= 1 / 2: minimax fit of the relative error, 2.9e-6 with the first coefficient fixed.
inline constexpr int kFixedExp2Degree = 4;
inline constexpr float kFixedExp2[kFixedExp2Degree + 1] = {0x1.fffcp+14f, 0x1.62de66p+14f, 0x1.ebff4ep+12f, 0x1.c9f91ep+10f,
                                                           0x1.3a159p+8f};
// 2^v for v <= 0 as a fraction of 32767; n vectors at once, step by step, as the chain of one is long.
template <class V, int n>
[[gnu::always_inline]] inline void fixed_exp2(const typename V::F32 (&v)[n], typename V::I32* to) {
  typename V::F32 whole[n], f[n], p[n];
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) {
    whole[i] = V::rint(v[i]);
    f[i] = V::sub(v[i], whole[i]);
    p[i] = V::set1(kFixedExp2[kFixedExp2Degree]);
  }
#pragma GCC unroll 8
  for (int j = kFixedExp2Degree - 1; j >= 0; --j)
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) p[i] = V::fma(p[i], f[i], V::set1(kFixedExp2[j]));
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) to[i] = V::round_i32(V::times_power(p[i], whole[i]));
}

// The quantizer of one tensor.
struct Quantizer {
  float inverse_scale = 1.0f;
  int32_t zero_point = 0;
};

// The same numbers as docs/arithmetic.md's order gives, in fewer instructions: only the upper end is clamped before the
// conversion, where NaN passes (`min` returns its second operand), and what the conversion cannot hold becomes the least
// integer, which the lower end takes up. Without the zero point and the lower end:
template <class V>
[[gnu::always_inline]] inline typename V::I32 quantize_high(typename V::F32 v, typename V::F32 inverse_scale, int32_t zero_point) {
  return V::round_i32(V::min(V::set1(static_cast<float>(255 - zero_point)), V::mul(v, inverse_scale)));
}

template <class V>
[[gnu::always_inline]] inline typename V::I32 quantize(typename V::F32 v, typename V::F32 inverse_scale, int32_t zero_point) {
  return V::max(V::add(quantize_high<V>(v, inverse_scale, zero_point), V::set1_i32(zero_point)), V::zero_i32());
}

template <class V>
[[gnu::always_inline]] inline typename V::I32 quantize(typename V::F32 v, const Quantizer& q) {
  return quantize<V>(v, V::set1(q.inverse_scale), q.zero_point);
}

}  // namespace openwork
