// One INT8 linear layer ready to run: packed weights, and the epilogue's arrays in whole strips.
#pragma once

#include <memory>
#include <vector>

#include "kernels/packing.h"
#include "runtime/buffer.h"
#include "runtime/linear_partition.h"

namespace openwork {

struct LinearEpilogue {
  Floats scale;  // [n]: x_scale * weight_scale
  Floats bias;   // [n], or empty
  int x_zero_point = 0;
  Activation activation = Activation::none;
  bool quantized = false;
  Floats inverse_scale;  // [n], where quantized: y_multiplier / y_scale
  int y_zero_point = 0;
};

struct LinearBuffers {
  const void* x;          // [rows, k] of the weights' type, with kReadAhead behind it
  const float* residual;  // [rows, n] or null
  void* y;                // [rows, n]
};

class LinearLayer {
 public:
  // `epilogue` fits the weights: scale and bias have n entries.
  LinearLayer(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue);
  // The epilogue points into the arrays.
  LinearLayer(LinearLayer&&) = default;
  LinearLayer(const LinearLayer&) = delete;

  const PackedWeights& weights() const { return *weights_; }
  LinearPartition partition(int64_t rows, int threads) const;
  void run(const LinearBuffers& buffers, const Block& block) const;
  // For a call of the kernel, but for where the activations are.
  GemmArgs args(const float* residual, void* y) const;

 private:
  std::shared_ptr<const PackedWeights> weights_;
  Aligned<int32_t> start_;
  Floats scale_, bias_, inverse_scale_;
  Epilogue epilogue_;
};

}  // namespace openwork
