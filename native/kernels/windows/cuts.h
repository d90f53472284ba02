// How all groups of a weight are cut into windows, and in which order its output channels stand for that.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/windows/steps.h"

namespace openwork::windows {

struct CutShape {
  StepShape step;
  int64_t share;        // channels of a unit
  int64_t units;        // whole groups
  int64_t group_units;  // that a kernel makes at once
  int64_t span_units;   // that an order may mix; whole groups
};

struct WindowCut {
  std::vector<int64_t> order;      // the unit in each place
  bool ordered = false;            // the order is not the natural one
  std::vector<int64_t> counts;     // the elements of the unit in each place
  std::vector<int32_t> begins;     // of the windows of all groups and their runs, one after the other
  std::vector<int32_t> run_steps;  // [groups, runs]: how many of them are each run's

  int64_t steps() const { return static_cast<int64_t>(begins.size()); }
};

// In natural order, or, where that takes clearly fewer steps, with the units of each span by their number of weights.
WindowCut cut_windows(const WeightReader& reader, const CutShape& shape);

}  // namespace openwork::windows
