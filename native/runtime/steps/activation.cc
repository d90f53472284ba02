// An activation as a step of a program.
#include "runtime/steps/context.h"

namespace openwork {

Step make_activation(const StepContext& c) {
  const Operand x = c.input("x", {DType::f32});
  const Operand y = c.output("y", {DType::f32}).shaped(x.dims());
  const ActivationFunction activation = c.activation(c.op());

  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), activation, x = x.id, y = y.id](const Sizes& sizes) {
    const ElementArgs fixed{nullptr, sizes.elements(x), nullptr, {}, activation};
    return make_element_work(sizes, table.activate, fixed, [x, y](ElementArgs& a, const Buffers& b, int) {
      a.a = b.get<const float>(x);
      a.y = b.get<void>(y);
    });
  }};
  step.apart = x.dims().size() > 2;
  step.in_place = {{x.id, y.id}};
  return step;
}

}  // namespace openwork
