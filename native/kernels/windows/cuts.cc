#include "kernels/windows/cuts.h"

#include <algorithm>
#include <numeric>

namespace openwork::windows {
namespace {

// Fewer steps by less than this are not worth putting the sums back in order.
constexpr double kWorthOrdering = 0.04;

using Counts = std::vector<int64_t>;  // weights of each unit

Counts counts(const NonZeros& all) {
  Counts found;
  for (int64_t unit = 0; unit < all.units(); ++unit) found.push_back(all.count(unit));
  return found;
}

std::vector<int64_t> natural_order(const NonZeros& all) {
  std::vector<int64_t> order(static_cast<size_t>(all.units()));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

// So that the lanes of a group end together.
std::vector<int64_t> order_by_count(const NonZeros& all, const Counts& count, int64_t span_units) {
  std::vector<int64_t> order = natural_order(all);
  for (auto at = order.begin(); at < order.end();) {
    const auto end = order.end() - at > span_units ? at + span_units : order.end();
    std::stable_sort(at, end, [&](int64_t a, int64_t b) { return count[static_cast<size_t>(a)] > count[static_cast<size_t>(b)]; });
    at = end;
  }
  return order;
}

WindowCut cut_in_order(const NonZeros& all, std::vector<int64_t> order, const CutShape& shape) {
  WindowCut cut;
  cut.order = std::move(order);
  Lanes lanes(shape.group_units, all.words());
  for (int64_t unit = 0; unit < all.units(); unit += shape.group_units)
    for (int64_t run = 0; run < all.runs(); ++run) {
      const int64_t before = cut.steps();
      lanes.load(all, cut.order.data() + unit, run);
      cut_steps(lanes, shape.step, cut.begins);
      cut.run_steps.push_back(static_cast<int32_t>(cut.steps() - before));
    }
  return cut;
}

// Whether no order could do with much fewer steps.
bool is_full(const WindowCut& cut, const Counts& count, const CutShape& shape) {
  const int64_t taken = std::accumulate(count.begin(), count.end(), int64_t{0});
  return static_cast<double>(taken) >= (1 - kWorthOrdering) * static_cast<double>(cut.steps() * shape.group_units * shape.step.slots);
}

}  // namespace

WindowCut cut_windows(const NonZeros& all, const CutShape& shape) {
  WindowCut natural = cut_in_order(all, natural_order(all), shape);
  if (all.units() < 2 * shape.group_units) return natural;
  const Counts count = counts(all);
  if (is_full(natural, count, shape)) return natural;
  WindowCut sorted = cut_in_order(all, order_by_count(all, count, shape.span_units), shape);
  sorted.ordered = true;
  const bool worth = static_cast<double>(sorted.steps()) < (1 - kWorthOrdering) * static_cast<double>(natural.steps());
  return worth ? sorted : natural;
}

}  // namespace openwork::windows
