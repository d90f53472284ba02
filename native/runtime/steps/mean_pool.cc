// The mean over the kept positions as a step of a program.
#include "runtime/steps/context.h"

namespace openwork {

Step make_mean_pool(const StepContext& c) {
  const Operand x = c.input("x", {DType::f32}).ranked(3, "[B, L, H]");
  const Operand mask = c.input("mask", {DType::i64}).shaped({x.dims()[0], x.dims()[1]});
  const Operand y = c.output("y", {DType::f32}).shaped({x.dims()[0], x.dims()[2]});

  Step step{c.name(), {x.id, mask.id}, {y.id}, [&table = c.table(), x = x.id, mask = mask.id, y = y.id](const Sizes& sizes) {
    const int64_t width = sizes.width(x);
    const int64_t units = sizes.dims[x][0] * ((width + kPoolBlock - 1) / kPoolBlock);
    const MeanPoolArgs fixed{nullptr, nullptr, sizes.dims[x][1], width, nullptr};
    return make_work(units, even_chunk(units, sizes.threads), table.mean_pool, fixed,
                     [x, mask, y](MeanPoolArgs& a, const Buffers& b, int) {
                       a.x = b.get<const float>(x);
                       a.mask = b.get<const int64_t>(mask);
                       a.y = b.get<float>(y);
                     });
  }};
  step.mask = mask.id;
  return step;
}

}  // namespace openwork
