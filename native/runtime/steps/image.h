// What the steps on images share: x is [batch, height, width, channels], and a window slides over it.
#pragma once

#include "runtime/convolution/shape.h"
#include "runtime/steps/context.h"

namespace openwork {

// An image of one of these types, whose channels are fixed; batch, height and width may be free.
Operand read_image(const StepContext& context, const std::string& slot, DTypes dtypes);

// `strides`, `dilations` and `pads` of a step.
ConvAttributes window_attributes(const StepContext& context);

// Refuses y of another shape than [batch, out height, out width, channels], as far as the sizes of x are fixed. `shape`: the
// window, for any image.
void expect_made(const StepContext& context, const Operand& x, const ConvShape& shape, int64_t channels, const Operand& y);

// The shape of y for one of x, for Step::shapes. Throws std::invalid_argument where the window does not fit.
std::vector<int64_t> window_output(const Place& place, const ConvShape& shape, int64_t channels, const std::vector<int64_t>& x);

// What refuses sizes knows of no step: its message begins with the place.
template <class Make>
auto made_at(const Place& place, const Make& make) {
  try {
    return make();
  } catch (const std::invalid_argument& e) {
    place.fail(e.what());
  }
}

}  // namespace openwork
