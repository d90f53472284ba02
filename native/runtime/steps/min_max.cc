// The range of a value's numbers as a step of a program: of each of some parts, so that threads share the work.
#include "runtime/steps/context.h"

namespace openwork {

Step make_min_max(const StepContext& c) {
  const Operand x = c.input("x", {DType::f32});
  const Operand y = c.output("y", {DType::f32}).ranked(2, "[parts, 2]");
  c.expect(y.dims()[0] > 0 && y.dims()[1] == 2, "expected y of shape [parts, 2], found " + shape_text(y.dims()) + ".");
  const int64_t parts = y.dims()[0];

  return {c.name(), {x.id}, {y.id}, [&table = c.table(), parts, x = x.id, y = y.id](const Sizes& sizes) {
    const MinMaxArgs fixed{nullptr, sizes.elements(x), parts, nullptr};
    return make_work(parts, even_chunk(parts, sizes.threads), table.min_max, fixed, [x, y](MinMaxArgs& a, const Buffers& b, int) {
      a.x = b.get<const float>(x);
      a.y = b.get<float>(y);
    });
  }};
}

}  // namespace openwork
