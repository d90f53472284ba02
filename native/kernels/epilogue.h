// What happens to the sums of a product, as a kernel reads it: docs/arithmetic.md, "Epilogue".
#pragma once

#include <cstdint>

#include "simd/activations.h"

namespace openwork {

// Of residuals and of outputs. An s8 is a u8 with its top bit flipped: 128 less.
enum class Stored { f32, bf16, u8, s8 };
constexpr int stored_bytes(Stored type) { return type == Stored::f32 ? 4 : type == Stored::bf16 ? 2 : 1; }
constexpr bool is_quantized(Stored type) { return type == Stored::u8 || type == Stored::s8; }

// Channels behind the last group that the arrays of an epilogue hold as well.
inline constexpr int64_t kEpilogueSlack = 64;

// The arrays hold entries for whole groups of channels and kEpilogueSlack more, in natural order. Plain data: PreparedEpilogue
// (runtime/epilogue.h) owns the memory. Where the output is quantized and the rest linear, the arrays are in its units.
struct Epilogue {
  const float* scale = nullptr;
  const float* bias = nullptr;
  ActivationFunction activation;
  bool activation_last = false;  // after the residual

  // The sums are rounded to u8 and back before the residual is added; `scale` and `bias` are in units of that u8, of which the
  // factor makes what the residual is added to. Where the residual is a u8 and the rest linear, its factor and the next two are
  // in units of the output.
  bool rounded = false;
  const float* sum_factor = nullptr;
  const float* sum_bias = nullptr;  // what is added besides: the residual's zero point
  int32_t sum_zero_point = 0;

  Stored residual = Stored::f32;  // not s8
  const float* residual_factor = nullptr;
  int32_t residual_zero_point = 0;

  Stored output = Stored::f32;
  // The next four where it is quantized.
  const float* inverse_scale = nullptr;  // 1 where the arrays are in units of the output
  int32_t y_zero_point = 0;              // of the u8
  const uint8_t* low = nullptr;          // the ends of each channel's u8
  const uint8_t* high = nullptr;
  bool scaled = false;              // the arrays are in units of the output, and the activation is none
  bool bounded = false;             // and nothing but a float residual leaves INT32; where rounded, nothing at all
  const uint8_t* lookup = nullptr;  // 256 bytes or null: what stands for each u8
};

}  // namespace openwork
