// Floats rounded to the nearest BF16, ties to even: what products with weights of BF16 read.
#include "runtime/steps/context.h"

namespace openwork {

Step make_round_bf16(const StepContext& c) {
  const Operand x = c.input("x", {DType::f32});
  const Operand y = c.output("y", {DType::bf16}).shaped(x.dims());

  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), x = x.id, y = y.id](const Sizes& sizes) {
    const RoundArgs fixed{nullptr, sizes.elements(x), nullptr};
    return make_element_work(sizes, table.round_bf16, fixed, [x, y](RoundArgs& a, const Buffers& b, int) {
      a.x = b.get<const float>(x);
      a.y = b.get<uint16_t>(y);
    });
  }};
  step.apart = true;
  return step;
}

}  // namespace openwork
