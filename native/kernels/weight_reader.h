// Where a weight has what: its elements by output channel, run of activations and place in the run.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/weight_shape.h"

namespace openwork {

// Places in a run, increasing.
using Positions = std::vector<int32_t>;

class WeightReader {
 public:
  // `weight`: s8, BF16 as its upper 16 bits, or binary32, by `type`, in the order of WeightShape.
  WeightReader(const WeightShape& shape, Type type, const void* weight)
      : shape_(shape), type_(type), weight_(static_cast<const uint8_t*>(weight)), bytes_(element_bytes(type)) {}

  // The first element of a run's pixel that the channel's group reads.
  int64_t base(int64_t channel) const { return channel / (shape_.n / shape_.groups) * shape_.channels; }
  // The number of the weight of `channel` at element `at` of a run, or -1 where it has none there.
  int64_t source(int64_t channel, int64_t run, int64_t at) const;
  // The elements of a run where any of the `share` channels from `channel` on has a weight that is not zero.
  Positions positions(int64_t channel, int64_t share, int64_t run) const;
  const uint8_t* at(int64_t source) const { return weight_ + source * bytes_; }

 private:
  bool is_zero(int64_t at) const;

  const WeightShape& shape_;
  Type type_;
  const uint8_t* weight_;
  int64_t bytes_;  // of an element
};

}  // namespace openwork
