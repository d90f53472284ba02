// Cuts the non-zero weights of a group of output channels into the steps that a shuffled kernel takes.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/nonzeros.h"

namespace openwork::windows {

struct StepShape {
  int reach;        // elements that one window holds, at most 64
  int slots;        // elements that a lane takes in a step
  int align;        // of a window's beginning, elements; whole windows
  double crossing;  // what a window costs that begins elsewhere, aligned ones costing 1; 0: there are none
  bool halves;      // each half of the window fills its own half of the slots (indices of two bits)

  uint64_t window() const { return ~uint64_t{0} >> (64 - reach); }
};

// What the lanes of a group have in a run that no step has taken yet.
class Lanes {
 public:
  Lanes(int64_t lanes, int64_t words) : lanes_(lanes), words_(words), bits_(static_cast<size_t>(lanes * (words + 1)), 0) {}

  // Lane i takes the elements of units[i].
  void load(const NonZeros& all, const int64_t* units, int64_t run);
  // The first element that any lane has left, or -1. Does not go back.
  int32_t first();
  // The 64 elements from `begin` on, the first being the lowest bit.
  uint64_t ahead(int64_t lane, int32_t begin) const {
    const uint64_t* at = bits_.data() + begin / 64 * lanes_ + lane;
    const int shift = begin % 64;
    // The word behind the last one is zero. Two shifts, as one of 64 would be none.
    return at[0] >> shift | at[lanes_] << 1 << (63 - shift);
  }
  void remove(int64_t lane, int32_t begin, uint64_t elements) {
    uint64_t* at = bits_.data() + begin / 64 * lanes_ + lane;
    const int shift = begin % 64;
    at[0] &= ~(elements << shift);
    at[lanes_] &= ~(elements >> 1 >> (63 - shift));
  }
  int64_t lanes() const { return lanes_; }

 private:
  int64_t lanes_, words_, word_ = 0;
  std::vector<uint64_t> bits_;  // [words + 1, lanes]
};

// Of the elements of a window those that one step takes: the first ones, as many as there are slots.
inline uint64_t take(uint64_t window, int slots) {
  uint64_t left = window;
  for (int i = 0; i < slots; ++i) left &= left - 1;
  return window ^ left;
}
// With `halves` it ends at the first one whose half of the slots is full.
inline uint64_t take(uint64_t window, const StepShape& shape) {
  if (!shape.halves) return take(window, shape.slots);
  const uint64_t low = window & shape.window() >> shape.reach / 2, taken = take(low, shape.slots / 2);
  return taken == low ? taken | take(window ^ low, shape.slots / 2) : taken;
}

// Where the windows of a run begin, which is added to `begins`; takes all that the lanes have. In order of position: each window
// begins as far to the right as the lane that is furthest behind allows, or at the aligned place before, whichever takes more
// for its cost, and each lane takes as much as it can. For any N:M whose groups fit the window this gives no more steps than
// fixed windows.
void cut_steps(Lanes& lanes, const StepShape& shape, std::vector<int32_t>& begins);

}  // namespace openwork::windows
