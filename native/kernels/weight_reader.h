// Where a weight has what: its elements by output channel, run of activations and place in the run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/weight_shape.h"

namespace openwork {

class WeightReader {
 public:
  // `weight`: s8, BF16 as its upper 16 bits, or binary32, by `type`, in the order of WeightShape.
  WeightReader(const WeightShape& shape, Type type, const void* weight)
      : shape_(shape), type_(type), weight_(static_cast<const uint8_t*>(weight)), bytes_(element_bytes(type)) {}

  const WeightShape& shape() const { return shape_; }
  Type type() const { return type_; }
  // The first element of a run's pixel that the channel's group reads.
  int64_t base(int64_t channel) const { return channel / (shape_.n / shape_.groups) * shape_.channels; }
  // The weights of a channel from that kernel tap on, those of a tap side by side.
  const uint8_t* taps(int64_t channel, int64_t tap) const {
    return weight_ + (channel * shape_.k() + tap * shape_.channels) * bytes_;
  }

 private:
  const WeightShape& shape_;
  Type type_;
  const uint8_t* weight_;
  int64_t bytes_;  // of an element
};

// The weights of some channels by element of a run.
class RunRows {
 public:
  RunRows(const WeightReader& reader, int64_t count);
  // Makes row `number` that of a channel and run.
  void read(int64_t number, int64_t channel, int64_t run);
  // Its weights, zero where it has none; null behind the last channel.
  const uint8_t* row(int64_t number) const { return rows_[static_cast<size_t>(number)]; }

 private:
  struct Held {
    int64_t channel = -1, run = 0;
  };
  uint8_t* spread(int64_t number, Held held);
  // Of a row in spread_ the elements that the channel has.
  template <class F>
  void each_tap(int64_t number, Held held, const F& f);

  const WeightReader& reader_;
  int64_t row_bytes_;
  std::vector<const uint8_t*> rows_;
  // Channels in groups have only their group's part of each pixel: their rows are copies, and what each holds.
  std::vector<uint8_t> spread_;
  std::vector<Held> held_;
};

}  // namespace openwork
