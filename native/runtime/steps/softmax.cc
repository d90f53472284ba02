// Softmax of rows as a step of a program: to floats or to u8.
#include "runtime/steps/context.h"

namespace openwork {

Step make_softmax(const StepContext& c) {
  const Operand x = c.input("x", {DType::f32});
  const Operand y = c.output("y", {DType::f32, DType::u8}).shaped(x.dims());
  SoftmaxArgs fixed;
  fixed.y_bytes = y.dtype() == DType::u8;
  if (fixed.y_bytes) fixed.quantizer = c.quantization("y").quantizer();

  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), fixed, x = x.id, y = y.id](const Sizes& sizes) {
    const int64_t rows = sizes.rows(x);
    SoftmaxArgs sized = fixed;
    sized.width = sizes.width(x);
    Work work = make_work(rows, even_chunk(rows, sizes.threads), table.softmax, sized,
                          [x, y](SoftmaxArgs& a, const Buffers& b, int thread) {
                            a.x = b.get<const float>(x);
                            a.y = b.get<void>(y);
                            a.scratch = b.scratch_of<float>(thread);
                          });
    work.scratch_bytes = fixed.y_bytes ? sized.width * static_cast<int64_t>(sizeof(float)) : 0;
    return work;
  }};
  step.apart = x.dims().size() > 2;
  step.in_place = {{x.id, y.id}};
  return step;
}

}  // namespace openwork
