#include "kernels/windows/steps.h"

#include <algorithm>
#include <limits>

namespace openwork::windows {
namespace {

// The lane's next position, or none.
constexpr int32_t kNone = std::numeric_limits<int32_t>::max();

Take take(const Positions& lane, int32_t first, int32_t begin, const StepShape& shape) {
  Take taken{first, 0, 0};
  const int32_t middle = begin + shape.reach / 2, end = begin + shape.reach;
  const auto most = static_cast<int8_t>(shape.slots);
  for (size_t i = static_cast<size_t>(first); i < lane.size() && lane[i] < end && taken.count < most; ++i) {
    if (shape.halves && lane[i] < middle && taken.low == most / 2) break;
    if (shape.halves && lane[i] >= middle && taken.count - taken.low == most / 2) break;
    taken.low = static_cast<int8_t>(taken.low + (lane[i] < middle));
    ++taken.count;
  }
  return taken;
}

// The step that begins there; `taken` counts what it takes.
WindowStep step_at(const std::vector<Positions>& lanes, const std::vector<int32_t>& next, int32_t begin, const StepShape& shape, int& taken) {
  WindowStep step{begin, {}};
  taken = 0;
  for (size_t l = 0; l < lanes.size(); ++l) {
    step.lanes.push_back(take(lanes[l], next[l], begin, shape));
    taken += step.lanes.back().count;
  }
  return step;
}

WindowStep best_step(const std::vector<Positions>& lanes, const std::vector<int32_t>& next, int32_t first, const StepShape& shape) {
  int from_aligned = 0, from_first = 0;
  WindowStep aligned = step_at(lanes, next, first / shape.align * shape.align, shape, from_aligned);
  if (shape.crossing == 0.0 || aligned.begin == first) return aligned;
  WindowStep crossing = step_at(lanes, next, first, shape, from_first);
  return from_first > shape.crossing * from_aligned ? crossing : aligned;
}

}  // namespace

std::vector<WindowStep> cut_steps(const std::vector<Positions>& lanes, const StepShape& shape) {
  std::vector<WindowStep> steps;
  std::vector<int32_t> next(lanes.size(), 0);
  for (;;) {
    int32_t begin = kNone;
    for (size_t l = 0; l < lanes.size(); ++l)
      if (next[l] < static_cast<int32_t>(lanes[l].size())) begin = std::min(begin, lanes[l][static_cast<size_t>(next[l])]);
    if (begin == kNone) return steps;
    WindowStep step = best_step(lanes, next, begin, shape);
    for (size_t l = 0; l < lanes.size(); ++l) next[l] += step.lanes[l].count;
    steps.push_back(std::move(step));
  }
}

}  // namespace openwork::windows
