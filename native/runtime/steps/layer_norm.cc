// Layer norm as a step of a program: to floats, to u8, or to both.
#include "runtime/steps/context.h"

namespace openwork {

Step make_layer_norm(const StepContext& c) {
  struct Numbers {
    Floats gamma, beta, inverse_scale;
  };
  const Operand x = c.input("x", {DType::f32});
  const int64_t width = x.width();
  const Operand y = c.optional_output("y", {DType::f32}).shaped(x.dims());
  const Operand yq = c.optional_output("yq", {DType::u8}).shaped(x.dims());
  c.expect(y || yq, "expected an output y, yq or both, found neither.");
  const auto numbers = std::make_shared<Numbers>(Numbers{c.floats("gamma", {width}), c.floats("beta", {width}), {}});
  LayerNormArgs fixed{};
  fixed.width = width;
  fixed.epsilon = c.number("epsilon").positive();
  fixed.gamma = numbers->gamma.data();
  fixed.beta = numbers->beta.data();
  if (yq) {
    const Quantization quantization = c.quantization("y");
    numbers->inverse_scale = c.inverse_scales(quantization, width);
    fixed.inverse_scale = numbers->inverse_scale.data();
    fixed.y_zero_point = quantization.zero_point;
  }

  Step step{c.name(), {x.id}, {y.id, yq.id},
          [&table = c.table(), fixed, numbers, x = x.id, y = y.id, yq = yq.id](const Sizes& sizes) {
    const int64_t rows = sizes.rows(x);
    return make_work(rows, even_chunk(rows, sizes.threads), table.layer_norm, fixed,
                     [x, y, yq](LayerNormArgs& a, const Buffers& b, int) {
                       a.x = b.get<const float>(x);
                       a.y = b.get<float>(y);
                       a.yq = b.get<uint8_t>(yq);
                     });
  }};
  step.apart = x.dims().size() > 2;
  step.in_place = {{x.id, y.id}};
  return step;
}

}  // namespace openwork
