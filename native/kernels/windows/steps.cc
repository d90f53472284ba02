#include "kernels/windows/steps.h"

#include <bit>

namespace openwork::windows {
namespace {

// How many elements the step that begins there takes.
int64_t taken_from(const Lanes& lanes, int32_t begin, const StepShape& shape) {
  int64_t taken = 0;
  for (int64_t l = 0; l < lanes.lanes(); ++l) {
    uint64_t left = lanes.ahead(l, begin) & shape.window();
    for (int i = 0; i < shape.slots; ++i, left &= left - 1) taken += left != 0;
  }
  return taken;
}

int32_t best_begin(const Lanes& lanes, int32_t first, const StepShape& shape) {
  const int32_t aligned = first / shape.align * shape.align;
  if (shape.crossing == 0.0 || aligned == first) return aligned;
  const auto from_first = static_cast<double>(taken_from(lanes, first, shape));
  return from_first > shape.crossing * static_cast<double>(taken_from(lanes, aligned, shape)) ? first : aligned;
}

}  // namespace

void Lanes::load(const NonZeros& all, const int64_t* units, int64_t run) {
  word_ = 0;
  for (int64_t l = 0; l < lanes_; ++l) {
    const uint64_t* from = all.run(units[l], run);
    for (int64_t w = 0; w < words_; ++w) bits_[static_cast<size_t>(w * lanes_ + l)] = from[w];
  }
}

int32_t Lanes::first() {
  for (; word_ < words_; ++word_) {
    const uint64_t* at = bits_.data() + word_ * lanes_;
    uint64_t any = 0;
    for (int64_t l = 0; l < lanes_; ++l) any |= at[l];
    if (any) return static_cast<int32_t>(word_ * 64 + std::countr_zero(any));
  }
  return -1;
}

void cut_steps(Lanes& lanes, const StepShape& shape, std::vector<int32_t>& begins) {
  for (int32_t first = lanes.first(); first >= 0; first = lanes.first()) {
    const int32_t begin = best_begin(lanes, first, shape);
    for (int64_t l = 0; l < lanes.lanes(); ++l) lanes.remove(l, begin, take(lanes.ahead(l, begin) & shape.window(), shape));
    begins.push_back(begin);
  }
}

}  // namespace openwork::windows
