// Convolutions outside of a program: one call for tests, and the timing that the builder chooses by.
#pragma once

#include <memory>
#include <vector>

#include "runtime/convolution/layer.h"

namespace openwork {

struct ImageSize {
  int64_t batch = 1, height = 1, width = 1;
};

// y = [batch, out height, out width, n] of float or u8, by the epilogue. buffers.x is [batch, height, width, channels] of the
// weights' type and read to its last element. Throws std::invalid_argument where the numbers do not do.
void run_convolution(const ConvLayer& layer, const ImageSize& size, const LinearBuffers& buffers, int threads);

struct ConvTiming {
  ImageSize size;
  ConvAttributes attributes;
  ActivationFunction activation;
  bool quantized = false;
  int threads = 1;
  int repeats = 1;
  bool floats = false;  // x is f32, which is rounded for weights of BF16; weights of both types may take turns
};

// Seconds [weights.size()][repeats] on random activations. All weights stand for the same layer and take turns, so that a
// change of the machine's clock meets all of them. Throws std::invalid_argument.
std::vector<std::vector<double>> time_convolution(const std::vector<std::shared_ptr<const PackedWeights>>& weights,
                                                  const ConvTiming& timing);

}  // namespace openwork
