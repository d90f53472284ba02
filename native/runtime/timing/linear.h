// INT8 products outside of a program: one call for tests, and the timing that the builder chooses by.
#pragma once

#include <memory>
#include <vector>

#include "runtime/linear/layer.h"

namespace openwork {

// y = [rows, n] of float or u8, by the epilogue. x is [rows, k] of the weights' type; residual is [rows, n] or null. Throws
// std::invalid_argument where the numbers do not do.
void run_linear(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue, int64_t rows, const void* x,
                const void* residual, void* y, int threads);

struct LinearTiming {
  int64_t rows = 1;
  ActivationFunction activation;
  bool quantized = false;
  int threads = 1;
  int repeats = 1;
  bool floats = false;  // x is f32, which weights of BF16 round; weights of both types may take turns
};

// Seconds [weights.size()][repeats] on random activations. All weights stand for the same layer and take turns, so that a
// change of the machine's clock meets all of them. Throws std::invalid_argument.
std::vector<std::vector<double>> time_linear(const std::vector<std::shared_ptr<const PackedWeights>>& weights,
                                             const LinearTiming& timing);

}  // namespace openwork
