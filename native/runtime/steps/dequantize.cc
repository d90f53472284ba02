// u8 to the floats that it stands for, as a step of a program.
#include "runtime/steps/context.h"

namespace openwork {

namespace {

// Into rows that lie apart.
Work bind_rows(const KernelTable& table, const DequantizeArgs& fixed, int x, int y, const Sizes& sizes) {
  Work work;
  work.units = sizes.rows(x);
  work.chunk = even_chunk(work.units, sizes.threads);
  work.run = [&table, fixed, x, y, width = sizes.width(x), stride = sizes.stride(y)](const Buffers& b, const Part& part) {
    DequantizeArgs row = fixed;
    row.count = width;
    for (int64_t r = part.begin; r < part.end; ++r) {
      row.x = b.get<const uint8_t>(x) + r * width;
      row.y = b.get<float>(y) + r * stride;
      table.dequantize(row, 0, (width + kElementBlock - 1) / kElementBlock);
    }
  };
  return work;
}

}  // namespace

Step make_dequantize(const StepContext& c) {
  const Operand x = c.input("x", {DType::u8});
  const Operand y = c.output("y", {DType::f32}).shaped(x.dims());
  const Quantization quantization = c.quantization("x");

  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), quantization, x = x.id, y = y.id](const Sizes& sizes) {
    const DequantizeArgs fixed{nullptr, sizes.elements(x), quantization.scale, quantization.zero_point, nullptr};
    if (sizes.lies_inside(y)) return bind_rows(table, fixed, x, y, sizes);
    return make_element_work(sizes, table.dequantize, fixed, [x, y](DequantizeArgs& a, const Buffers& b, int) {
      a.x = b.get<const uint8_t>(x);
      a.y = b.get<float>(y);
    });
  }};
  step.strided = true;
  step.apart = true;
  return step;
}

}  // namespace openwork
