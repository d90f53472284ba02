// Activations over vectors of 16 floats, in the exact order of operations that docs/arithmetic.md states. The coefficients
// below are the normative ones.
#pragma once

#include "simd/math.h"

namespace openwork {

enum class Activation { none, relu, clip, leaky_relu, hard_sigmoid, hard_swish, gelu, gelu_tanh, silu, sigmoid, tanh };

// alpha and beta: the ends of clip, the slope of leaky_relu, factor and summand of the hard ones.
struct ActivationFunction {
  Activation kind;
  float alpha, beta;

  constexpr ActivationFunction(Activation kind_ = Activation::none, float alpha_ = 0.0f, float beta_ = 0.0f)
      : kind(kind_), alpha(alpha_), beta(beta_) {}
};

// Quartics in a >= 0 for 16 pieces that grow with a: the lowest two bits of the exponent and the highest two of the mantissa
// of `1 + steps * a` name the piece, so that each octave of it has four. Below `clamp`, in the last piece, that is less than 16.
inline constexpr int kPieceDegree = 4;
// a / (1 + exp(a)): error below 7e-7; the last piece, from a = 17.34 on, is zero.
alignas(64) inline constexpr float kSilu[kPieceDegree + 1][16] = {
    {-0x1.c7a72ap-6f, 0x1.4a57eep-8f, 0x1.796048p-3f, 0x1.c808p-2f, 0x1.74b666p-1f, 0x1.8b1f12p-1f, 0x1.2717ap-1f,
     0x1.6b0cbp-2f, 0x1.2568a4p-3f, 0x1.f72e8ep-6f, 0x1.5e1e8cp-8f, 0x0p+0f, 0x0p+0f, -0x1.ef9936p-14f,
     -0x1.09223p-9f, -0x1.3f407p-7f},
    {0x1.30f67p-1f, 0x1.124654p-1f, 0x1.12cc98p-2f, -0x1.7f5704p-5f, -0x1.4df63cp-2f, -0x1.760646p-2f,
     -0x1.fc9548p-3f, -0x1.17d14ap-3f, -0x1.82298cp-5f, -0x1.12026cp-7f, -0x1.4426cap-10f, 0x0p+0f, 0x1p-1f,
     0x1.009f3p-1f, 0x1.063ffap-1f, 0x1.15f068p-1f},
    {-0x1.8810d4p-2f, -0x1.5e4992p-2f, -0x1.8961dp-3f, -0x1.926faep-5f, 0x1.c0000cp-5f, 0x1.14a5e2p-4f,
     0x1.51e6b2p-5f, 0x1.49b2a4p-6f, 0x1.815276p-8f, 0x1.c282dap-11f, 0x1.c40ee4p-14f, 0x0p+0f, -0x1.0004bap-2f,
     -0x1.04eed4p-2f, -0x1.1d9108p-2f, -0x1.4c895cp-2f},
    {0x1.78a668p-4f, 0x1.466ae6p-4f, 0x1.5975e8p-5f, 0x1.b3880ap-7f, -0x1.ff4aa2p-9f, -0x1.78ccaap-8f,
     -0x1.987e88p-9f, -0x1.5ee2e6p-10f, -0x1.58ded2p-12f, -0x1.4b031cp-15f, -0x1.19392ep-18f, 0x0p+0f,
     0x1.d83022p-13f, 0x1.25d392p-7f, 0x1.0b735cp-5f, 0x1.036f7ep-4f},
    {-0x1.08902ep-7f, -0x1.b745dep-8f, -0x1.9fc4b4p-9f, -0x1.00e154p-10f, 0x1.7bd726p-14f, 0x1.8c952ap-13f,
     0x1.79a9cp-14f, 0x1.1be5fp-15f, 0x1.d2845cp-18f, 0x1.6e8918p-21f, 0x1.0743fcp-24f, 0x0p+0f, 0x1.49368ep-6f,
     0x1.c55b48p-7f, 0x1.46945p-8f, -0x1.69f85ap-9f}};
inline constexpr float kSiluSteps = 0x1.8p-1f;  // 0.75
inline constexpr float kSiluClamp = 0x1.2p+4f;  // 18
// tanh(a): error below 8e-7; the first piece has the exact value and slope at 0, the last one, from a = 8 on, is one.
alignas(64) inline constexpr float kTanh[kPieceDegree + 1][16] = {
    {-0x1.9fed32p-7f, -0x1.2045dp-4f, -0x1.20c92p-3f, -0x1.365d5ep-3f, -0x1.c7fc88p-7f, 0x1.42dad6p-2f,
     0x1.3748b8p-1f, 0x1.986b76p-1f, 0x1.dc2e06p-1f, 0x1.f92f6ep-1f, 0x1.fedd5p-1f, 0x1p+0f, 0x0p+0f,
     0x1.babad6p-15f, 0x1.5ab1aap-12f, -0x1.71df6p-12f},
    {0x1.1315ecp+0f, 0x1.52e6c4p+0f, 0x1.8ec386p+0f, 0x1.96c8aap+0f, 0x1.4e008ap+0f, 0x1.87f798p-1f, 0x1.8572fap-2f,
     0x1.60d602p-3f, 0x1.9c0622p-5f, 0x1.01df54p-7f, 0x1.23886p-10f, 0x0p+0f, 0x1p+0f, 0x1.ff5cc6p-1f,
     0x1.fd7824p-1f, 0x1.001eep+0f},
    {-0x1.398b2cp-3f, -0x1.1e5f6ep-1f, -0x1.b3776ep-1f, -0x1.c51f2ep-1f, -0x1.54212p-1f, -0x1.541e5p-2f,
     -0x1.220566p-3f, -0x1.ca4cp-5f, -0x1.c0bea2p-7f, -0x1.cc45dcp-10f, -0x1.b871c2p-13f, 0x0p+0f, 0x1.3010acp-13f,
     0x1.7f2eecp-7f, 0x1.f1a572p-6f, 0x1.d60f36p-7f},
    {-0x1.ed2a7ap-3f, 0x1.c31be4p-5f, 0x1.bbd1cp-3f, 0x1.de0414p-3f, 0x1.41bd62p-3f, 0x1.0dbce4p-4f, 0x1.875f3cp-6f,
     0x1.0c49b4p-7f, 0x1.b6084ap-10f, 0x1.6f1424p-13f, 0x1.28d82p-16f, 0x0p+0f, -0x1.59ee86p-2f, -0x1.8daa98p-2f,
     -0x1.b920d2p-2f, -0x1.a39f12p-2f},
    {0x1.7f9d2ep-4f, 0x1.962252p-7f, -0x1.5dc08cp-6f, -0x1.8f052ep-6f, -0x1.d90d9cp-7f, -0x1.4834dap-8f,
     -0x1.926746p-10f, -0x1.dcb8aap-12f, -0x1.42e36ep-14f, -0x1.b92338p-18f, -0x1.2d121ap-21f, 0x0p+0f,
     0x1.62c028p-5f, 0x1.0d9ccap-3f, 0x1.587d62p-3f, 0x1.43771cp-3f}};
inline constexpr float kTanhSteps = 0x1.ap+0f;  // 1.625
inline constexpr float kTanhClamp = 0x1.1p+3f;  // 8.5
inline constexpr int kPieceShift = 21;          // the bits of a binary32 below the piece's

// n vectors at once, as the chain of one is four times as long as its share of the ports.
template <class V, int n>
[[gnu::always_inline]] inline void piecewise_each(const float (&table)[kPieceDegree + 1][16], float steps,
                                                  const typename V::F32 (&a)[n], typename V::F32 (&p)[n]) {
  typename V::I32 piece[n];
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i)
    piece[i] = V::template shift_right<kPieceShift>(V::bits(V::fma(a[i], V::set1(steps), V::set1(1.0f))));
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) p[i] = V::lookup16(V::load(table[kPieceDegree]), piece[i]);
#pragma GCC unroll 4
  for (int j = kPieceDegree - 1; j >= 0; --j)
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) p[i] = V::fma(p[i], a[i], V::lookup16(V::load(table[j]), piece[i]));
}

// v / (1 + exp(-v)) = max(v, 0) - a / (1 + exp(a)) of a = |v|.
template <class V, int n>
[[gnu::always_inline]] inline void silu_each(typename V::F32 (&v)[n]) {
  typename V::F32 a[n], p[n];
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) a[i] = V::min_magnitude(v[i], V::set1(kSiluClamp));
  piecewise_each<V, n>(kSilu, kSiluSteps, a, p);
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) v[i] = V::sub(V::max(V::zero(), v[i]), p[i]);
}

template <class V, int n>
[[gnu::always_inline]] inline void tanh_each(typename V::F32 (&v)[n]) {
  typename V::F32 a[n], p[n];
  // The clamp comes first, so that NaN stays.
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) a[i] = V::min(V::set1(kTanhClamp), V::abs(v[i]));
  piecewise_each<V, n>(kTanh, kTanhSteps, a, p);
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) v[i] = V::copy_sign(p[i], v[i]);
}

// 1 / (1 + exp(-v)) = (1 + tanh(v / 2)) / 2.
template <class V, int n>
[[gnu::always_inline]] inline void sigmoid_each(typename V::F32 (&v)[n]) {
  const auto half = V::set1(0.5f);
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) v[i] = V::mul(v[i], half);
  tanh_each<V, n>(v);
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) v[i] = V::fma(v[i], half, half);
}

// NaN becomes the low end, as with relu.
template <class V>
[[gnu::always_inline]] inline typename V::F32 clip(typename V::F32 v, const ActivationFunction& f) {
  return V::min(V::max(v, V::set1(f.alpha)), V::set1(f.beta));
}
template <class V>
[[gnu::always_inline]] inline typename V::F32 leaky_relu(typename V::F32 v, const ActivationFunction& f) {
  return V::fma(V::set1(f.alpha), V::min(V::zero(), v), V::max(v, V::zero()));
}
template <class V>
[[gnu::always_inline]] inline typename V::F32 hard_sigmoid(typename V::F32 v, const ActivationFunction& f) {
  return V::max(V::zero(), V::min(V::set1(1.0f), V::fma(V::set1(f.alpha), v, V::set1(f.beta))));
}
template <class V>
[[gnu::always_inline]] inline typename V::F32 hard_swish(typename V::F32 v, const ActivationFunction& f) {
  return V::mul(v, hard_sigmoid<V>(v, f));
}

// One of the activations of one vector, on n vectors.
template <class V, Activation kind, int n>
[[gnu::always_inline]] inline void activate_each(typename V::F32 (&v)[n], [[maybe_unused]] const ActivationFunction& f) {
  if constexpr (kind == Activation::gelu) {
    gelu_each<V, n>(kGelu, v);
  } else if constexpr (kind == Activation::gelu_tanh) {
    gelu_each<V, n>(kGeluTanh, v);
  } else if constexpr (kind == Activation::silu) {
    silu_each<V, n>(v);
  } else if constexpr (kind == Activation::tanh) {
    tanh_each<V, n>(v);
  } else if constexpr (kind == Activation::sigmoid) {
    sigmoid_each<V, n>(v);
  } else {
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) {
      if constexpr (kind == Activation::relu) v[i] = relu<V>(v[i]);
      if constexpr (kind == Activation::clip) v[i] = clip<V>(v[i], f);
      if constexpr (kind == Activation::leaky_relu) v[i] = leaky_relu<V>(v[i], f);
      if constexpr (kind == Activation::hard_sigmoid) v[i] = hard_sigmoid<V>(v[i], f);
      if constexpr (kind == Activation::hard_swish) v[i] = hard_swish<V>(v[i], f);
    }
  }
}

// Calls body.template operator()<kind>() with the activation.
template <class Body>
[[gnu::always_inline]] inline void with_activation(Activation kind, const Body& body) {
  switch (kind) {
    case Activation::none: return body.template operator()<Activation::none>();
    case Activation::relu: return body.template operator()<Activation::relu>();
    case Activation::clip: return body.template operator()<Activation::clip>();
    case Activation::leaky_relu: return body.template operator()<Activation::leaky_relu>();
    case Activation::hard_sigmoid: return body.template operator()<Activation::hard_sigmoid>();
    case Activation::hard_swish: return body.template operator()<Activation::hard_swish>();
    case Activation::gelu: return body.template operator()<Activation::gelu>();
    case Activation::gelu_tanh: return body.template operator()<Activation::gelu_tanh>();
    case Activation::silu: return body.template operator()<Activation::silu>();
    case Activation::sigmoid: return body.template operator()<Activation::sigmoid>();
    case Activation::tanh: return body.template operator()<Activation::tanh>();
  }
}

// `vectors` vectors that stand one after the other, in place: a multiple of four.
inline constexpr int kActivationStep = 4;
template <class V>
[[gnu::noinline]] void activate(const ActivationFunction& f, float* values, int64_t vectors) {
  with_activation(f.kind, [&]<Activation kind>() {
    if constexpr (kind == Activation::none) return;
    for (int64_t i = 0; i < vectors; i += kActivationStep, values += kActivationStep * 16) {
      typename V::F32 v[kActivationStep];
#pragma GCC unroll 4
      for (int j = 0; j < kActivationStep; ++j) v[j] = V::load(values + j * 16);
      activate_each<V, kind, kActivationStep>(v, f);
#pragma GCC unroll 4
      for (int j = 0; j < kActivationStep; ++j) V::store(values + j * 16, v[j]);
    }
  });
}

}  // namespace openwork
