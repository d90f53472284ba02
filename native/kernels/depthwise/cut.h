// How depthwise convolutions are cut: what packing and the kernels (run.h) agree on.
#pragma once

#include "kernels/gemm.h"

namespace openwork::depthwise {

// A row of kernel taps is read as whole steps of neighbouring pixels, of as many taps as four bytes hold. INT8 sums are exact in
// any order: there the same steps serve several neighbouring output pixels, as far as the steps' pixels reach, each with the
// weights moved on by a tap. They are stored [kernel row][step][output][channel].
struct DepthwiseSteps {
  int64_t steps;    // of a row of taps
  int64_t outputs;  // neighbours that share them
};

constexpr DepthwiseSteps depthwise_steps(Type type, int64_t kernel_w) {
  const int64_t taps = 4 / element_bytes(type), steps = (kernel_w + taps - 1) / taps;
  // The widths for which the kernels are compiled.
  const bool shared = type == Type::i8 && (kernel_w == 3 || kernel_w == 5);
  return {steps, shared ? taps * steps - kernel_w + 1 : 1};
}

}  // namespace openwork::depthwise
