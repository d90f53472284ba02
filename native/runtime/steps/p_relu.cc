// A leaky relu with a slope of each channel as a step of a program.
#include "runtime/steps/context.h"

namespace openwork {

Step make_p_relu(const StepContext& c) {
  const Operand x = c.input("x", {DType::f32});
  const Operand y = c.output("y", {DType::f32}).shaped(x.dims());
  const int64_t width = x.width();
  const auto slope = std::make_shared<const Floats>(c.floats("slope", {width}));

  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), slope, width, x = x.id, y = y.id](const Sizes& sizes) {
    const int64_t rows = sizes.rows(x);
    const PReluArgs fixed{nullptr, slope->data(), width, nullptr};
    return make_work(rows, even_chunk(rows, sizes.threads), table.p_relu, fixed,
                     [x, y, slope](PReluArgs& a, const Buffers& b, int) {
                       a.x = b.get<const float>(x);
                       a.y = b.get<float>(y);
                     });
  }};
  step.apart = x.dims().size() > 2;
  step.in_place = {{x.id, y.id}};
  return step;
}

}  // namespace openwork
