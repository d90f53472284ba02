// One INT8 linear layer ready to run: packed weights, and the epilogue's arrays in whole strips.
#pragma once

#include <memory>
#include <vector>

#include "kernels/packing.h"
#include "runtime/buffer.h"
#include "runtime/epilogue.h"
#include "runtime/linear_partition.h"

namespace openwork {

// Its scale is x_scale * weight_scale.
struct LinearEpilogue : EpilogueSpec {
  int x_zero_point = 0;
};

struct LinearBuffers {
  const void* x;         // [rows, k] of the weights' type, with kReadAhead behind it
  const void* residual;  // [rows, n], where the epilogue has one
  void* y;               // [rows, n]
};

class LinearLayer {
 public:
  // `epilogue` fits the weights: scale and bias have n entries.
  LinearLayer(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue);
  LinearLayer(LinearLayer&&) = default;
  LinearLayer(const LinearLayer&) = delete;

  const PackedWeights& weights() const { return *weights_; }
  LinearPartition partition(int64_t rows, int threads) const;
  // What run() needs of each thread's memory.
  int64_t scratch_bytes() const { return weights_->scratch_bytes(); }
  // `scratch` is aligned to 64 bytes and holds scratch_bytes().
  void run(const LinearBuffers& buffers, const Block& block, std::byte* scratch) const;
  // For a call of the kernel, but for where the activations are.
  GemmArgs args(const void* residual, void* y, std::byte* scratch) const;

 private:
  std::shared_ptr<const PackedWeights> weights_;
  Aligned<int32_t> start_;
  PreparedEpilogue epilogue_;
};

}  // namespace openwork
