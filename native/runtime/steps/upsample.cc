// Every pixel of an image several times, side by side and below each other, as a step of a program.
#include "runtime/steps/image.h"

namespace openwork {

namespace {

using Factors = std::array<int64_t, 2>;  // of height and width

std::vector<int64_t> enlarged(const Factors& factors, std::vector<int64_t> x) {
  for (size_t i = 0; i < 2; ++i)
    if (x[i + 1] > 0) x[i + 1] *= factors[i];
  return x;
}

struct Repeat {
  Factors factors;
  int x, y;
  int64_t bytes;  // of an element
};

// A unit is a line of the output.
Work bind_repeat(const Repeat& repeat, const KernelTable& table, const Sizes& sizes) {
  const auto& x = sizes.dims[static_cast<size_t>(repeat.x)];
  const int64_t pixel = x[3] * repeat.bytes, from = sizes.stride(repeat.x) * repeat.bytes, to = sizes.stride(repeat.y) * repeat.bytes;
  Work work;
  work.units = x[0] * x[1] * repeat.factors[0];
  work.chunk = even_chunk(work.units, sizes.threads);
  work.run = [&table, repeat, pixel, from, to, width = x[2]](const Buffers& b, const Part& part) {
    const auto [down, across] = repeat.factors;
    for (int64_t line = part.begin; line < part.end; ++line) {
      const auto* line_of_x = b.get<const uint8_t>(repeat.x) + line / down * width * from;
      auto* y = b.get<uint8_t>(repeat.y) + line * width * across * to;
      for (int64_t i = 0; i < across; ++i) table.copy_rows({line_of_x, pixel, from, nullptr, y + i * to, across * to}, 0, width);
    }
  };
  return work;
}

}  // namespace

Step make_upsample(const StepContext& c) {
  constexpr int64_t kMostTimes = 65535;
  const Operand x = read_image(c, "x", {DType::u8, DType::bf16, DType::f32});
  const Operand y = c.output("y", {x.dtype()}).ranked(4, "[batch, height, width, channels]");
  const Factors factors = c.list<2>("factors");
  for (const int64_t f : factors)
    c.expect(f >= 1 && f <= kMostTimes, "expected factors from 1 to 65535, found " + std::to_string(f) + ".");
  std::vector<int64_t> expected = enlarged(factors, x.dims());
  for (const size_t i : {1, 2})
    if (x.dims()[i] < 0) expected[i] = y.dims()[i];
  y.shaped(expected);
  Step step{c.name(), {{x.id, false, false, true}}, {y.id},
            [&table = c.table(), repeat = Repeat{factors, x.id, y.id, dtype_bytes(x.dtype())}](const Sizes& sizes) {
              return bind_repeat(repeat, table, sizes);
            }};
  step.shapes = [factors](const Shapes& reads) -> Shapes { return {enlarged(factors, reads[0])}; };
  step.strided = true;
  return step;
}

}  // namespace openwork
