#include "test/plain_activation.h"

#include <cmath>

namespace openwork::test {

namespace {

float min_of(float a, float b) { return a < b ? a : b; }
float max_of(float a, float b) { return a > b ? a : b; }

float quartic(const float (&table)[5][16], int piece, float a) {
  float p = table[4][piece];
  for (int i = 3; i >= 0; --i) p = std::fma(p, a, table[i][piece]);
  return p;
}
// 16 pieces: four in each octave of 1 + steps a.
float piecewise(const float (&table)[5][16], float steps, float a) {
  return quartic(table, static_cast<int>(to_bits(std::fma(a, steps, 1.0f)) >> 21 & 15), a);
}
float plain_gelu(const float (&table)[5][16], float v) {
  const float a = min_of(std::fabs(v), 5.5f);
  return max_of(0.0f, v) - quartic(table, static_cast<int>(std::nearbyint(2.75 * a)), a);
}
float plain_tanh(float v) {
  if (std::isnan(v)) return v;
  return std::copysign(piecewise(kTanh, 1.625f, min_of(std::fabs(v), 8.5f)), v);
}

}  // namespace

float plain_activation(const ActivationFunction& f, float v) {
  switch (f.kind) {
    case Activation::none: return v;
    case Activation::relu: return max_of(v, 0.0f);
    case Activation::clip: return min_of(max_of(v, f.alpha), f.beta);
    case Activation::leaky_relu: return std::fma(f.alpha, min_of(0.0f, v), max_of(v, 0.0f));
    case Activation::hard_sigmoid: return max_of(0.0f, min_of(1.0f, std::fma(f.alpha, v, f.beta)));
    case Activation::hard_swish: return v * max_of(0.0f, min_of(1.0f, std::fma(f.alpha, v, f.beta)));
    case Activation::gelu: return plain_gelu(kGelu, v);
    case Activation::gelu_tanh: return plain_gelu(kGeluTanh, v);
    case Activation::silu: return max_of(0.0f, v) - piecewise(kSilu, 0.75f, min_of(std::fabs(v), 18.0f));
    case Activation::sigmoid: return std::fma(plain_tanh(0.5f * v), 0.5f, 0.5f);
    case Activation::tanh: return plain_tanh(v);
  }
  return v;
}

}  // namespace openwork::test
