// INT8 products: what a kernel takes. The meaning is docs/arithmetic.md, "Linear, INT8".
#pragma once

#include <cstdint>

#include "simd/math.h"

namespace openwork {

inline constexpr int kStripLanes = 16;
// Bytes that a kernel may read behind the last element of `x`: the widest window, less one byte.
inline constexpr int64_t kReadAhead = 63;

enum class Form {
#define OPENWORK_GEMM(form, window, shuffled) form,
#include "kernels/table.inc"
#undef OPENWORK_GEMM
  count
};

enum class Activation { none, relu, gelu };

// Weights as a kernel reads them: groups of `strips` strips of 16 output channels; in a group, for each window and step,
// the 64 index bytes of each strip (shuffled forms), then its 64 weight bytes. Plain data: packing.h owns the memory.
struct PackedView {
  const uint8_t* data = nullptr;
  int64_t group_bytes = 0;
  int64_t groups = 0;
  int64_t windows = 0;
  int64_t steps = 0;  // a window
};

// What happens to the INT32 sums. The arrays hold groups * strips * 16 entries: kernels read whole strips.
struct Epilogue {
  const int32_t* offset = nullptr;  // (activation offset of the instruction set - x_zero_point) * column sum
  const float* scale = nullptr;
  const float* bias = nullptr;
  Activation activation = Activation::none;
  bool quantized = false;                // y is u8 through the two below, else float
  const float* inverse_scale = nullptr;  // y_multiplier / y_scale
  int32_t y_zero_point = 0;
};

struct GemmArgs {
  const uint8_t* x = nullptr;  // [rows, k], readable for kReadAhead bytes behind its end
  int64_t x_stride = 0;        // bytes
  PackedView weights;
  int64_t n = 0;  // output channels that are stored
  Epilogue epilogue;
  const float* residual = nullptr;  // [rows, n] or null
  int64_t residual_stride = 0;      // elements
  void* y = nullptr;                // [rows, n]
  int64_t y_stride = 0;             // elements
};

// The part of the output that one call makes.
struct Block {
  int64_t row_begin, row_end;
  int64_t group_begin, group_end;
};

using GemmKernel = void (*)(const GemmArgs&, const Block&);

}  // namespace openwork
