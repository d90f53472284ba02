// Cuts the non-zero weights of a group of output channels into the steps that a shuffled kernel takes.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/weight_reader.h"

namespace openwork::windows {

struct StepShape {
  int reach;        // elements that one window holds
  int slots;        // elements that a lane takes in a step
  int align;        // of a window's beginning, elements
  double crossing;  // what a window costs that begins elsewhere, aligned ones costing 1; 0: there are none
  bool halves;      // each half of the window fills its own half of the slots (indices of two bits)
};

// One step: where its window begins, and which of the lane's positions each lane takes: [first, first + count) in order of
// position; with `halves` the first `low` of them lie in the first half.
struct Take {
  int32_t first;
  int8_t count, low;
};
struct WindowStep {
  int32_t begin;
  std::vector<Take> lanes;
};

// `lanes`: the positions of the elements that one channel of each lane of a mask has in a run. Steps in order of position: each
// window begins as far to the right as the lane that is furthest behind allows, or at the aligned place before, whichever
// takes more for its cost, and each lane takes as much as it can. For any N:M whose groups fit the window this gives no more
// steps than fixed windows.
std::vector<WindowStep> cut_steps(const std::vector<Positions>& lanes, const StepShape& shape);

}  // namespace openwork::windows
