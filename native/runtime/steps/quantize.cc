// Floats to u8 as a step of a program.
#include "runtime/steps/context.h"

namespace openwork {

Step make_quantize(const StepContext& c) {
  const Operand x = c.input("x", {DType::f32});
  const Operand y = c.output("y", {DType::u8}).shaped(x.dims());
  const Quantizer quantizer = c.quantization("y").quantizer();

  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), quantizer, x = x.id, y = y.id](const Sizes& sizes) {
    const ElementArgs fixed{nullptr, sizes.elements(x), nullptr, quantizer};
    return make_element_work(sizes, table.quantize, fixed, [x, y](ElementArgs& a, const Buffers& b, int) {
      a.a = b.get<const float>(x);
      a.y = b.get<void>(y);
    });
  }};
  step.apart = true;
  return step;
}

}  // namespace openwork
