// Floats to u8 by the range that they were found to have: docs/arithmetic.md, "Dynamic quantization".
#include <cmath>

#include "runtime/steps/context.h"

namespace openwork {

namespace {

// `range`: of each part the least and the greatest number, 0 among them.
Quantization quantization_of(const float* range, int64_t parts) {
  float low = 0.0f, high = 0.0f;
  for (int64_t i = 0; i < parts; ++i) {
    low = std::fmin(low, range[2 * i]);
    high = std::fmax(high, range[2 * i + 1]);
  }
  const float scale = high > low ? (high - low) / 255.0f : 1.0f;
  // As where a range is known beforehand: a subnormal scale's reciprocal would lose bits. An infinite one says nothing.
  if (!std::isfinite(scale) || scale < 0x1p-126f) return {1.0f, 0};
  const float point = std::nearbyint(-low / scale);
  return {scale, static_cast<int32_t>(point < 255.0f ? point : 255.0f)};
}

}  // namespace

Step make_quantize_by_range(const StepContext& c) {
  const Operand x = c.input("x", {DType::f32});
  const Operand range = c.input("range", {DType::f32}).ranked(2, "[parts, 2]");
  const Operand y = c.output("y", {DType::u8}).shaped(x.dims());
  const Operand quantizer = c.output("quantizer", {DType::f32}).shaped({2});
  const int64_t parts = range.dims()[0];
  c.expect(parts > 0 && range.dims()[1] == 2, "expected a range of shape [parts, 2], found " + shape_text(range.dims()) + ".");

  return {c.name(), {x.id, range.id}, {y.id, quantizer.id},
          [&table = c.table(), parts, x = x.id, range = range.id, y = y.id, made = quantizer.id](const Sizes& sizes) {
    const ElementArgs fixed{nullptr, sizes.elements(x), nullptr};
    Work work = make_element_work(sizes, table.quantize, fixed, [](ElementArgs&, const Buffers&, int) {});
    work.run = [&table, fixed, parts, x, range, y, made](const Buffers& b, const Part& part) {
      const Quantization found = quantization_of(b.get<const float>(range), parts);
      ElementArgs args = fixed;
      args.a = b.get<const float>(x);
      args.y = b.get<void>(y);
      args.quantizer = found.quantizer();
      table.quantize(args, part.begin, part.end);
      if (part.begin != 0) return;
      b.get<float>(made)[0] = found.scale;
      b.get<float>(made)[1] = static_cast<float>(found.zero_point);
    };
    return work;
  }};
}

}  // namespace openwork
