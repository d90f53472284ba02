// The division of rows by their norm as a step of a program.
#include "runtime/steps/context.h"

namespace openwork {

Step make_l2_normalize(const StepContext& c) {
  const Operand x = c.input("x", {DType::f32});
  const Operand y = c.output("y", {DType::f32}).shaped(x.dims());
  const float epsilon = c.number("epsilon").positive();

  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), epsilon, x = x.id, y = y.id](const Sizes& sizes) {
    const int64_t rows = sizes.rows(x);
    const L2NormalizeArgs fixed{nullptr, sizes.width(x), epsilon, nullptr};
    return make_work(rows, even_chunk(rows, sizes.threads), table.l2_normalize, fixed,
                     [x, y](L2NormalizeArgs& a, const Buffers& b, int) {
                       a.x = b.get<const float>(x);
                       a.y = b.get<float>(y);
                     });
  }};
  step.apart = x.dims().size() > 2;
  step.in_place = {{x.id, y.id}};
  return step;
}

}  // namespace openwork
