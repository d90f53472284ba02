// One convolution ready to run: its packed weights and epilogue, and what follows from an image's size.
#pragma once

#include <memory>

#include "runtime/convolution/bands.h"
#include "runtime/convolution/indirection.h"
#include "runtime/linear/layer.h"

namespace openwork {

// For images of one size and a number of threads.
struct ConvPlan {
  Indirection indirection;
  LinearPartition partition;
  int64_t kernel_scratch;
  std::vector<Bands> bands;  // of each row block of the partition, or none

  // Of one thread.
  int64_t scratch_bytes() const;
  // The part of it that holds the table of pointers and what it leads to; the kernel's follows.
  int64_t table_bytes() const;
};

class ConvLayer {
 public:
  // `epilogue` fits the weights: scale and bias have n entries. The activations' zero point is what padding holds. Throws
  // std::invalid_argument for attributes that no convolution has, or that the weights' runs do not take.
  ConvLayer(std::shared_ptr<const PackedWeights> weights, const LinearEpilogue& epilogue, const ConvAttributes& attributes);

  const PackedWeights& weights() const { return linear_.weights(); }
  const ConvShape& shape() const { return shape_; }
  // Whether the pixels of x may lie further apart than they are wide.
  bool reads_apart() const { return weights().shape().run_taps() == 1; }
  // `step`: elements from pixel to pixel of x; 0: its channels. Throws std::invalid_argument as make_geometry() does.
  ConvPlan plan(int64_t batch, int64_t height, int64_t width, int threads, int64_t step = 0) const;
  // One unit of the plan's partition. x is [batch, height, width, channels], residual and y [batch, out_height, out_width, n];
  // `scratch` is aligned to 64 bytes and holds the plan's scratch_bytes().
  void run(const ConvPlan& plan, const LinearBuffers& buffers, int64_t unit, std::byte* scratch) const;

 private:
  // Whether padding is a number that leaves the sums as they began.
  bool padding_adds_nothing() const;

  LinearLayer linear_;
  ConvShape shape_;
  int zero_point_;
};

}  // namespace openwork
