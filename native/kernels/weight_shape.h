// The shape of a weight, of a matrix or of a convolution.
#pragma once

#include <cstdint>

#include "kernels/gemm.h"

namespace openwork {

// A weight of `n` output channels in `groups` groups, each over `channels` input channels and kernel_h x kernel_w taps:
// [n, kernel_h, kernel_w, channels]. A matrix [n, k] has one tap and k channels.
struct WeightShape {
  int64_t n = 0, channels = 0;
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t groups = 1;
  // A run of activations is a row of taps, whose pixels lie side by side, and not one tap.
  bool merged = false;
  // A run is a copy of all taps, one after the other.
  bool copied = false;

  int64_t taps() const { return kernel_h * kernel_w; }
  bool is_matrix() const { return taps() == 1 && groups == 1; }
  int64_t k() const { return taps() * channels; }  // weights of an output channel
  int64_t pixel() const { return groups * channels; }
  int64_t run_taps() const { return copied ? taps() : merged ? kernel_w : 1; }
  int64_t runs() const { return taps() / run_taps(); }
  int64_t run_elements() const { return pixel() * run_taps(); }
};

}  // namespace openwork
