// One linear layer ready to run: packed weights, and the epilogue's arrays in whole strips.
#pragma once

#include <memory>
#include <vector>

#include "kernels/packing.h"
#include "runtime/buffer.h"
#include "runtime/epilogue.h"
#include "runtime/linear/partition.h"

namespace openwork {

// Its scale is x_scale * weight_scale; or the weight_scale alone where `found_in_runs`: each run brings the scale and the zero point
// of x (LinearBuffers::quantizer).
struct LinearEpilogue : EpilogueSpec {
  int x_zero_point = 0;
  bool found_in_runs = false;
};

struct LinearBuffers {
  const void* x;         // [rows, k] of the weights' type, with kReadAhead behind it; or f32 to round, to its last element
  const void* residual;  // [rows, n], where the epilogue has one
  void* y;               // [rows, n]
  int64_t y_stride = 0;  // elements from row to row of y; 0: n
  const float* quantizer = nullptr;  // the scale and the zero point of x, where runs find them
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
  int64_t scratch_bytes(int64_t rows) const { return rounded_bytes(rows) + run_scale_bytes() + weights_->scratch_bytes(); }
  // `scratch` is aligned to 64 bytes and holds scratch_bytes().
  void run(const LinearBuffers& buffers, const Block& block, std::byte* scratch) const;
  // For a call of the kernel, but for where the activations are.
  GemmArgs args(const LinearBuffers& buffers, std::byte* scratch) const;

 private:
  int64_t rounded_bytes(int64_t rows) const;
  int64_t run_scale_bytes() const;
  // For the channels of `block`, the call's beginnings and scales in `scratch`.
  void scale_for_run(GemmArgs& call, const float* quantizer, const Block& block, std::byte* scratch) const;
  // The first byte of rows [begin, end), whole: in x, or rounded, in `scratch`.
  const uint8_t* find_rows(const void* x, int64_t begin, int64_t end, std::byte* scratch) const;

  std::shared_ptr<const PackedWeights> weights_;
  Aligned<int32_t> start_;
  PreparedEpilogue epilogue_;
  bool rounds_, found_in_runs_;
};

}  // namespace openwork
