#include "kernels/windows/cuts.h"

#include <algorithm>
#include <numeric>

namespace openwork::windows {
namespace {

// Fewer steps by less than this are not worth putting the sums back in order.
constexpr double kWorthOrdering = 0.04;

std::vector<int64_t> natural_order(const AllPositions& all) {
  std::vector<int64_t> order(all.front().size());
  std::iota(order.begin(), order.end(), 0);
  return order;
}

// So that the lanes of a group end together.
std::vector<int64_t> order_by_count(const AllPositions& all, int64_t span_units) {
  std::vector<int64_t> order = natural_order(all), count(order.size(), 0);
  for (const auto& run : all)
    for (size_t u = 0; u < run.size(); ++u) count[u] += static_cast<int64_t>(run[u].size());
  for (auto at = order.begin(); at < order.end();) {
    const auto end = order.end() - at > span_units ? at + span_units : order.end();
    std::stable_sort(at, end, [&](int64_t a, int64_t b) { return count[static_cast<size_t>(a)] > count[static_cast<size_t>(b)]; });
    at = end;
  }
  return order;
}

std::vector<std::vector<WindowStep>> cut_group(const AllPositions& all, const std::vector<int64_t>& order, int64_t group,
                                               const CutShape& shape) {
  std::vector<std::vector<WindowStep>> runs;
  for (const auto& run : all) {
    std::vector<Positions> lanes;
    for (int64_t u = group * shape.group_units; u < (group + 1) * shape.group_units; ++u)
      lanes.push_back(run[static_cast<size_t>(order[static_cast<size_t>(u)])]);
    runs.push_back(cut_steps(lanes, shape.step));
  }
  return runs;
}

WindowCut cut_in_order(const AllPositions& all, std::vector<int64_t> order, const CutShape& shape) {
  const int64_t groups = static_cast<int64_t>(order.size()) / shape.group_units;
  WindowCut cut;
  cut.order = std::move(order);
  for (int64_t g = 0; g < groups; ++g) {
    cut.groups.push_back(cut_group(all, cut.order, g, shape));
    for (const auto& run : cut.groups.back()) cut.steps += static_cast<int64_t>(run.size());
  }
  return cut;
}

// Whether no order could do with much fewer steps.
bool is_full(const WindowCut& cut, const AllPositions& all, const CutShape& shape) {
  int64_t taken = 0;
  for (const auto& run : all)
    for (const auto& lane : run) taken += static_cast<int64_t>(lane.size());
  return static_cast<double>(taken) >= (1 - kWorthOrdering) * static_cast<double>(cut.steps * shape.group_units * shape.step.slots);
}

}  // namespace

WindowCut cut_windows(const AllPositions& all, const CutShape& shape) {
  WindowCut natural = cut_in_order(all, natural_order(all), shape);
  if (natural.groups.size() < 2 || is_full(natural, all, shape)) return natural;
  WindowCut sorted = cut_in_order(all, order_by_count(all, shape.span_units), shape);
  sorted.ordered = true;
  const bool worth = static_cast<double>(sorted.steps) < (1 - kWorthOrdering) * static_cast<double>(natural.steps);
  return worth ? sorted : natural;
}

}  // namespace openwork::windows
