// What happens to the sums of a product: docs/arithmetic.md, "Linear, INT8".
#pragma once

#include <cstdint>

#include "simd/math.h"

namespace openwork {

enum class Activation { none, relu, gelu };

// What happens to the sums. The arrays hold entries for whole groups, in natural order of the channels.
struct Epilogue {
  const float* scale = nullptr;
  const float* bias = nullptr;
  Activation activation = Activation::none;
  bool quantized = false;                // y is u8 through the two below, else float
  const float* inverse_scale = nullptr;  // y_multiplier / y_scale
  int32_t y_zero_point = 0;
};

}  // namespace openwork
