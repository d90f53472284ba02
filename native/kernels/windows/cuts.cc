#include "kernels/windows/cuts.h"

#include <algorithm>
#include <numeric>

namespace openwork::windows {
namespace {

// Fewer steps by less than this are not worth putting the sums back in order.
constexpr double kWorthOrdering = 0.04;

std::vector<int64_t> natural_order(int64_t units) {
  std::vector<int64_t> order(static_cast<size_t>(units));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

// So that the lanes of a group end together.
std::vector<int64_t> order_by_count(const std::vector<int64_t>& counts, int64_t span_units) {
  std::vector<int64_t> order = natural_order(static_cast<int64_t>(counts.size()));
  for (auto at = order.begin(); at < order.end();) {
    const auto end = order.end() - at > span_units ? at + span_units : order.end();
    std::stable_sort(at, end, [&](int64_t a, int64_t b) {
      return counts[static_cast<size_t>(a)] > counts[static_cast<size_t>(b)];
    });
    at = end;
  }
  return order;
}

WindowCut cut_in_order(const WeightReader& reader, std::vector<int64_t> order, const CutShape& shape) {
  WindowCut cut;
  cut.order = std::move(order);
  cut.counts.assign(cut.order.size(), 0);
  Lanes lanes(reader, shape.group_units, shape.share);
  for (int64_t unit = 0; unit < shape.units; unit += shape.group_units)
    for (int64_t run = 0; run < reader.shape().runs(); ++run) {
      const int64_t before = cut.steps();
      lanes.load(cut.order.data() + unit, run);
      for (int64_t l = 0; l < shape.group_units; ++l) cut.counts[static_cast<size_t>(unit + l)] += lanes.count(l);
      cut_steps(lanes, shape.step, cut.begins);
      cut.run_steps.push_back(static_cast<int32_t>(cut.steps() - before));
    }
  return cut;
}

// Whether no order could do with much fewer steps.
bool is_full(const WindowCut& cut, const CutShape& shape) {
  const int64_t taken = std::accumulate(cut.counts.begin(), cut.counts.end(), int64_t{0});
  const int64_t slots = cut.steps() * shape.group_units * shape.step.slots;
  return static_cast<double>(taken) >= (1 - kWorthOrdering) * static_cast<double>(slots);
}

}  // namespace

WindowCut cut_windows(const WeightReader& reader, const CutShape& shape) {
  WindowCut natural = cut_in_order(reader, natural_order(shape.units), shape);
  if (shape.units < 2 * shape.group_units || is_full(natural, shape)) return natural;
  WindowCut sorted = cut_in_order(reader, order_by_count(natural.counts, shape.span_units), shape);
  sorted.ordered = true;
  const bool worth = static_cast<double>(sorted.steps()) < (1 - kWorthOrdering) * static_cast<double>(natural.steps());
  return worth ? sorted : natural;
}

}  // namespace openwork::windows
