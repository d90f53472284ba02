#include "kernels/windows/steps.h"

#include <bit>

namespace openwork::windows {
namespace {

// How many elements the step that begins there takes, without halves.
template <int slots>
uint64_t taken_from(const Lanes& lanes, int32_t begin, const StepShape& shape) {
  uint64_t taken = 0;
  lanes.each(begin, shape, [&](int64_t, uint64_t left) {
    // Without branches, so that it runs in vectors: the top bit of x | -x tells whether x is zero.
    for (int i = 0; i < slots; ++i, left &= left - 1) taken += (left | (0 - left)) >> 63;
  });
  return taken;
}

template <int slots>
int32_t best_begin(const Lanes& lanes, int32_t first, const StepShape& shape) {
  const int32_t aligned = first / shape.align * shape.align;
  if (shape.crossing == 0.0 || aligned == first) return aligned;
  const auto from_first = static_cast<double>(taken_from<slots>(lanes, first, shape));
  return from_first > shape.crossing * static_cast<double>(taken_from<slots>(lanes, aligned, shape)) ? first : aligned;
}

template <int slots>
void cut(Lanes& lanes, const StepShape& shape, std::vector<int32_t>& begins) {
  for (int32_t first = lanes.first(); first >= 0; first = lanes.first()) {
    const int32_t begin = best_begin<slots>(lanes, first, shape);
    if (shape.halves)
      lanes.each_taking(begin, shape, [&](int64_t, uint64_t window) { return take<slots>(window, shape); });
    else
      lanes.each_taking(begin, shape, [](int64_t, uint64_t window) { return take<slots>(window); });
    begins.push_back(begin);
  }
}

}  // namespace

void Lanes::load(const int64_t* units, int64_t run) {
  left_.restart();
  for (int64_t l = 0; l < left_.lanes(); ++l) left_.add(l, units[l], run);
  word_ = left_.begin();
}

int32_t Lanes::first() {
  for (; word_ < left_.end(); ++word_) {
    const uint64_t* at = left_.word(word_);
    uint64_t any = 0;
    for (int64_t l = 0; l < left_.lanes(); ++l) any |= at[l];
    if (any) return static_cast<int32_t>(word_ * 64 + std::countr_zero(any));
  }
  return -1;
}

void cut_steps(Lanes& lanes, const StepShape& shape, std::vector<int32_t>& begins) {
  (shape.slots == 4 ? cut<4> : shape.slots == 2 ? cut<2> : cut<1>)(lanes, shape, begins);
}

}  // namespace openwork::windows
