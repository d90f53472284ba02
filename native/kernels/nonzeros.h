// Where a weight is not zero, one bit an element.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/weight_reader.h"

namespace openwork {

// Of one run and some lanes, each of a unit: the `share` neighbouring output channels that have one mask, with an element where
// any of them has one. Who reads the bits clears them: only what a channel has is touched then, of runs that many groups share.
class NonZeros {
 public:
  NonZeros(const WeightReader& reader, int64_t lanes, int64_t share);

  // Adds what the unit has in the run to that lane, which has nothing. Units behind the last channel have nothing.
  void add(int64_t lane, int64_t unit, int64_t run);
  int64_t lanes() const { return lanes_; }
  int64_t count(int64_t lane) const;
  // Bit i % 64 of word i / 64 is element i of the run; one word more than the run needs can be read, and is zero.
  uint64_t* word(int64_t number) { return bits_.data() + number * lanes_; }  // [lanes]
  const uint64_t* word(int64_t number) const { return bits_.data() + number * lanes_; }
  // No other words have anything.
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  // After they are all cleared.
  void restart();

 private:
  // The elements of `weights` that are not zero, from element `at` of the run on.
  void add(int64_t lane, const uint8_t* weights, int64_t count, int64_t at);

  const WeightReader& reader_;
  int64_t lanes_, share_, words_, begin_, end_ = 0;
  std::vector<uint64_t> bits_;  // [words + 1, lanes]
};

}  // namespace openwork
