// u8 to the floats that it stands for, as a step of a program.
#include "runtime/steps/context.h"

namespace openwork {

Step make_dequantize(const StepContext& c) {
  const Operand x = c.input("x", {DType::u8});
  const Operand y = c.output("y", {DType::f32}).shaped(x.dims());
  const Quantization quantization = c.quantization("x");

  return {c.name(), {x.id}, {y.id}, [&table = c.table(), quantization, x = x.id, y = y.id](const Sizes& sizes) {
    const DequantizeArgs fixed{nullptr, sizes.elements(x), quantization.scale, quantization.zero_point, nullptr};
    return make_element_work(sizes, table.dequantize, fixed, [x, y](DequantizeArgs& a, const Buffers& b, int) {
      a.x = b.get<const uint8_t>(x);
      a.y = b.get<float>(y);
    });
  }};
}

}  // namespace openwork
