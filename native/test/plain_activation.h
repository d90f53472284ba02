// Activations in plain loops, written from docs/arithmetic.md, for the tests to compare kernels with.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd/activations.h"

namespace openwork::test {

inline float from_bits(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}
inline uint32_t to_bits(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits;
}

float plain_activation(const ActivationFunction& f, float v);

}  // namespace openwork::test
