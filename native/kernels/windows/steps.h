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
  uint64_t low() const { return window() >> reach / 2; }  // its first half
};

// Of the elements of a window those that one step takes: the first ones, as many as there are slots.
template <int slots>
uint64_t take(uint64_t window) {
  uint64_t left = window;
  for (int i = 0; i < slots; ++i) left &= left - 1;
  return window ^ left;
}
// With `halves` it ends at the first one whose half of the slots is full.
template <int slots>
uint64_t take(uint64_t window, const StepShape& shape) {
  if (!shape.halves) return take<slots>(window);
  const uint64_t low = window & shape.low(), taken = take<slots / 2>(low);
  return taken == low ? taken | take<slots / 2>(window ^ low) : taken;
}

// What the lanes of a group have in a run that no step has taken yet.
class Lanes {
 public:
  Lanes(const WeightReader& reader, int64_t lanes, int64_t share) : left_(reader, lanes, share) {}

  // Lane i gets the elements of units[i]; all those before are taken.
  void load(const int64_t* units, int64_t run);
  int64_t count(int64_t lane) const { return left_.count(lane); }
  // The first element that any lane has left, or -1. Does not go back.
  int32_t first();
  // Calls f(lane, its elements in the window that begins there, the first being the lowest bit).
  template <class F>
  void each(int32_t begin, const StepShape& shape, const F& f) const {
    const uint64_t *at = left_.word(begin / 64), *next = left_.word(begin / 64 + 1), window = shape.window();
    const int shift = begin % 64;
    if (shift + shape.reach <= 64)
      for (int64_t l = 0; l < left_.lanes(); ++l) f(l, at[l] >> shift & window);
    else
      for (int64_t l = 0; l < left_.lanes(); ++l) f(l, (at[l] >> shift | next[l] << (64 - shift)) & window);
  }
  // The same, and takes what f returns out of what is left.
  template <class F>
  void each_taking(int32_t begin, const StepShape& shape, const F& f) {
    uint64_t *at = left_.word(begin / 64), *next = left_.word(begin / 64 + 1);
    const uint64_t window = shape.window();
    const int shift = begin % 64;
    if (shift + shape.reach <= 64)
      for (int64_t l = 0; l < left_.lanes(); ++l) at[l] ^= f(l, at[l] >> shift & window) << shift;
    else
      for (int64_t l = 0; l < left_.lanes(); ++l) {
        const uint64_t taken = f(l, (at[l] >> shift | next[l] << (64 - shift)) & window);
        at[l] ^= taken << shift;
        next[l] ^= taken >> (64 - shift);
      }
  }

 private:
  NonZeros left_;
  int64_t word_ = 0;  // those before it have nothing left
};

// Where the windows of a run begin, which is added to `begins`; takes all that the lanes have. In order of position: each
// window begins as far to the right as the lane that is furthest behind allows, or at the aligned place before, whichever
// takes more for its cost, and each lane takes as much as it can. For any N:M whose groups fit the window this gives no more
// steps than fixed windows.
void cut_steps(Lanes& lanes, const StepShape& shape, std::vector<int32_t>& begins);

}  // namespace openwork::windows
