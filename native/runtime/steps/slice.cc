// A part of a value along one axis, as a step of a program.
#include <limits>

#include "runtime/steps/copy.h"

namespace openwork {

Step make_slice(const StepContext& c) {
  const Operand x = c.input("x", {DType::u8, DType::f32});
  const Operand y = c.output("y", {x.dtype()});
  const int64_t axis = c.integer("axis").within(0, static_cast<int64_t>(x.dims().size()) - 1);
  const int64_t size = x.dims()[static_cast<size_t>(axis)];
  // A free axis is as long as a run has it.
  const int64_t end = c.integer("end").within(1, size > 0 ? size : std::numeric_limits<int64_t>::max());
  const int64_t begin = c.integer("begin").within(0, end - 1);
  std::vector<int64_t> shape = x.dims();
  shape[static_cast<size_t>(axis)] = end - begin;
  y.shaped(shape);

  Step step{c.name(), {x.id}, {y.id}, [&table = c.table(), place = c.place(), x = x.id, y = y.id, dtype = x.dtype(), axis, begin, end](const Sizes& sizes) {
    const int64_t length = sizes.dims[static_cast<size_t>(x)][static_cast<size_t>(axis)];
    place.expect(length >= end, "expected at least " + std::to_string(end) + " elements along dimension " + std::to_string(axis) +
                                    ", which are cut, found " + std::to_string(length) + ".");
    const int64_t stride = row_bytes(sizes, x, axis, dtype), bytes = row_bytes(sizes, y, axis, dtype);
    const int64_t skipped = begin * row_bytes(sizes, x, axis + 1, dtype);
    const int64_t apart = sizes.lies_inside(y) ? sizes.stride(y) * dtype_bytes(dtype) : bytes;
    Work work;
    work.units = sizes.elements(y) * dtype_bytes(dtype) / bytes;
    work.chunk = even_chunk(work.units, sizes.threads);
    work.run = [&table, x, y, stride, bytes, skipped, apart](const Buffers& b, const Part& part) {
      const auto* from = b.get<const uint8_t>(x) + skipped;
      table.copy_rows({from, bytes, stride, nullptr, b.get<uint8_t>(y), apart}, part.begin, part.end);
    };
    return work;
  }};
  step.apart = axis > 1;
  step.front = axis == 1 ? end : 0;
  step.strided = axis + 1 == static_cast<int64_t>(x.dims().size());
  return step;
}

}  // namespace openwork
