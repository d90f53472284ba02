// One linear layer ready to run: packed weights, and the epilogue's arrays in whole strips.
#pragma once

#include <memory>
#include <vector>

#include "kernels/packing.h"
#include "runtime/buffer.h"
#include "runtime/epilogue.h"
#include "runtime/linear/partition.h"

namespace openwork {

// Its scale is x_scale * weight_scale.
struct LinearEpilogue : EpilogueSpec {
  int x_zero_point = 0;
};

struct LinearBuffers {
  const void* x;         // [rows, k] of the weights' type, with kReadAhead behind it; or f32 to round, to its last element
  const void* residual;  // [rows, n], where the epilogue has one
  void* y;               // [rows, n]
  int64_t y_stride = 0;  // elements from row to row of y; 0: n
};

class LinearLayer {
 public:
  // `epilogue` fits the weights: scale and bias have n entries. `rounds`: the weights are BF16, x is f32 and rounded to BF16.
  LinearLayer(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue, bool rounds = false);
  LinearLayer(LinearLayer&&) = default;
  LinearLayer(const LinearLayer&) = delete;

  const PackedWeights& weights() const { return *weights_; }
  LinearPartition partition(int64_t rows, int threads) const;
  // What run() needs of each thread's memory for blocks of at most so many rows.
  int64_t scratch_bytes(int64_t rows) const { return rounded_bytes(rows) + weights_->scratch_bytes(); }
  // `scratch` is aligned to 64 bytes and holds scratch_bytes().
  void run(const LinearBuffers& buffers, const Block& block, std::byte* scratch) const;
  // For a call of the kernel, but for where the activations are.
  GemmArgs args(const LinearBuffers& buffers, std::byte* scratch) const;

 private:
  int64_t rounded_bytes(int64_t rows) const;
  // The first byte of rows [begin, end), whole: in x, or rounded, in `scratch`.
  const uint8_t* find_rows(const void* x, int64_t begin, int64_t end, std::byte* scratch) const;

  std::shared_ptr<const PackedWeights> weights_;
  Aligned<int32_t> start_;
  PreparedEpilogue epilogue_;
  bool rounds_;
};

}  // namespace openwork
