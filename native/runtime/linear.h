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

class LinearLayer {
 public:
  // `epilogue` fits the weights: scale and bias have n entries.
  LinearLayer(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue);

  const PackedWeights& weights() const { return *weights_; }
  LinearPartition partition(int64_t rows, int threads) const;
  // x: [rows, k] with kReadAhead; residual: [rows, n] or null; y: [rows, n].
  GemmArgs args(const uint8_t* x, const float* residual, void* y) const;
  void run(const GemmArgs& args, const Block& block) const;

 private:
  std::shared_ptr<const PackedWeights> weights_;
  Aligned<int32_t> offset_;
  Floats scale_, bias_, inverse_scale_;
  Epilogue epilogue_;
};

}  // namespace openwork
