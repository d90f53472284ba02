// The operators on the elements of two values, which are the rows OPENWORK_BINARY of kernels/table.inc.
#include "runtime/steps/context.h"

namespace openwork {

namespace {

using ElementOp = void (*)(const ElementArgs&, int64_t, int64_t);

ElementOp kernel_of(const StepContext& c) {
#define OPENWORK_BINARY(binary, word) \
  if (c.op() == #binary) return c.table().binary;
#include "kernels/table.inc"
#undef OPENWORK_BINARY
  c.fail("expected an operator on two values.");
}

}  // namespace

Step make_binary(const StepContext& c) {
  const Operand a = c.input("a", {DType::f32});
  const Operand b = c.input("b", {DType::f32}).shaped(a.dims());
  const Operand y = c.output("y", {DType::f32}).shaped(a.dims());

  return {c.name(), {a.id, b.id}, {y.id}, [kernel = kernel_of(c), a = a.id, b = b.id, y = y.id](const Sizes& sizes) {
    const ElementArgs fixed{nullptr, nullptr, sizes.elements(a), nullptr};
    return make_element_work(sizes, kernel, fixed, [a, b, y](ElementArgs& args, const Buffers& buffers, int) {
      args.a = buffers.get<const float>(a);
      args.b = buffers.get<const float>(b);
      args.y = buffers.get<void>(y);
    });
  }};
}

}  // namespace openwork
