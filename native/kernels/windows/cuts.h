// How all groups of a weight are cut into windows, and in which order its output channels stand for that.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/windows/steps.h"

namespace openwork::windows {

// Of each run and unit: a unit is the neighbouring output channels that share a mask.
using AllPositions = std::vector<std::vector<Positions>>;

struct CutShape {
  StepShape step;
  int64_t group_units;  // that a kernel makes at once
  int64_t span_units;   // that an order may mix; whole groups
};

struct WindowCut {
  std::vector<int64_t> order;  // the unit in each place
  bool ordered = false;        // the order is not the natural one
  std::vector<std::vector<std::vector<WindowStep>>> groups;  // steps of each group and run
  int64_t steps = 0;
};

// In natural order, or, where that takes clearly fewer steps, with the units of each span by their number of weights. The units
// are whole groups.
WindowCut cut_windows(const AllPositions& all, const CutShape& shape);

}  // namespace openwork::windows
