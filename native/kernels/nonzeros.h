// Where a weight is not zero, one bit an element.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/weight_reader.h"

namespace openwork {

// Of each unit and run: a unit is the `share` neighbouring output channels that have one mask, and has an element where any of
// them does.
class NonZeros {
 public:
  // Units behind the last channel have nothing.
  NonZeros(const WeightReader& reader, int64_t units, int64_t share);

  int64_t units() const { return units_; }
  int64_t runs() const { return runs_; }
  int64_t words() const { return words_; }  // of a run
  // Element i of the run is bit i % 64 of word i / 64.
  const uint64_t* run(int64_t unit, int64_t run) const { return bits_.data() + (unit * runs_ + run) * words_; }
  // The elements of a unit, in all runs.
  int64_t count(int64_t unit) const;

 private:
  void add_channel(const WeightReader& reader, int64_t channel, int64_t unit);
  // The elements of `weights` that are not zero, from element `at` of a run on.
  void add(const uint8_t* weights, Type type, int64_t count, uint64_t* run, int64_t at);

  int64_t units_, runs_, words_;
  std::vector<uint64_t> bits_;
};

}  // namespace openwork
