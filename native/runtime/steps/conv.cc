// Convolutions as steps of a program: x is [batch, height, width, channels], the weights' max_rows count output pixels.
#include <algorithm>
#include <stdexcept>

#include "runtime/convolution/layer.h"
#include "runtime/steps/image.h"
#include "runtime/steps/products.h"

namespace openwork {

namespace {

bool same_layer(const WeightShape& a, const WeightShape& b) {
  return a.n == b.n && a.channels == b.channels && a.kernel_h == b.kernel_h && a.kernel_w == b.kernel_w && a.groups == b.groups;
}

std::string text(const WeightShape& w) {
  return shape_text({w.n, w.kernel_h, w.kernel_w, w.channels}) + " in " + std::to_string(w.groups) + " groups";
}

const PackedWeights& check_weights(const StepContext& c, const std::vector<PackedTactic>& weights, int64_t channels) {
  const PackedWeights& first = *weights[0].weights;
  c.expect(first.shape().pixel() == channels, "expected weights of " + std::to_string(channels) +
                                                  " input channels in all groups, found " +
                                                  std::to_string(first.shape().pixel()) + ".");
  for (const auto& [w, rows] : weights) {
    c.expect(w->type() == first.type(), "expected all weights of one type, found " + std::string(type_name(first.type())) +
                                            " and " + type_name(w->type()) + ".");
    c.expect(same_layer(w->shape(), first.shape()),
             "expected weights of shape " + text(first.shape()) + ", found " + text(w->shape()) + ".");
  }
  return first;
}

// Of the image for weights of a type: each pixel is read for several taps, so it is rounded to BF16 before.
DType dtype_of(Type weights) { return weights == Type::i8 ? DType::u8 : weights == Type::bf16 ? DType::bf16 : DType::f32; }

// What the program says of the weights as well.
void check_attributes(const StepContext& c, const WeightShape& w) {
  const auto kernel = c.list<2>("kernel");
  const std::vector<int64_t> said{kernel[0], kernel[1], c.integer("groups")}, held{w.kernel_h, w.kernel_w, w.groups};
  c.expect(said == held, "expected weights of the kernel and groups " + shape_text(said) + ", found " + shape_text(held) + ".");
}

using Layers = std::vector<ConvLayer>;

std::shared_ptr<const Layers> make_layers(const std::vector<PackedTactic>& weights, const LinearEpilogue& epilogue,
                                          const ConvAttributes& attributes) {
  auto layers = std::make_shared<Layers>();
  for (const auto& tactic : weights) layers->emplace_back(tactic.weights, epilogue, attributes);
  return layers;
}

}  // namespace

Step make_conv(const StepContext& c) {
  const auto& weights = c.weights();
  const Operand x = read_image(c, "x", {dtype_of(weights[0].weights->type())});
  const PackedWeights& first = check_weights(c, weights, x.dims()[3]);
  const ConvAttributes attributes = window_attributes(c);
  const ConvShape shape = conv_shape(first.shape(), attributes);
  check_attributes(c, first.shape());
  const Operand y = c.output("y", kStoredDTypes);
  expect_made(c, x, shape, shape.n, y);
  const Operand residual = c.optional_input("residual", kStoredDTypes).shaped(y.dims());
  const LinearEpilogue epilogue = make_epilogue(c, first, y, residual);
  const auto layers = made_at(c, [&] { return make_layers(weights, epilogue, attributes); });

  const bool apart = std::all_of(layers->begin(), layers->end(), [](const ConvLayer& layer) { return layer.reads_apart(); });
  Step step{c.name(), {{x.id, true, false, apart}, residual.id}, {y.id},
          [layers, limits = max_rows(weights), x = x.id, residual = residual.id, y = y.id](const Sizes& sizes) {
    const auto& dims = sizes.dims[static_cast<size_t>(x)];
    const ConvLayer* layer = &(*layers)[tactic_for(limits, sizes.rows(y))];
    const auto plan = std::make_shared<const ConvPlan>(layer->plan(dims[0], dims[1], dims[2], sizes.threads, sizes.stride(x)));
    Work work;
    work.units = plan->partition.units();
    work.scratch_bytes = plan->scratch_bytes();
    work.run = [layers, layer, plan, x, residual, y, stride = sizes.stride(y)](const Buffers& b, const Part& part) {
      const LinearBuffers buffers{b.get<const void>(x), b.get<const void>(residual), b.get<void>(y), stride};
      for (int64_t unit = part.begin; unit < part.end; ++unit)
        layer->run(*plan, buffers, unit, b.scratch_of<std::byte>(part.thread));
    };
    return work;
  }, [place = c.place(), shape](const Shapes& reads) -> Shapes {
    return {window_output(place, shape, shape.n, reads[0])};
  }};
  step.weight_bytes = weights.back().weights->bytes();
  step.strided = true;
  step.in_place = {{residual.id, y.id}};
  return step;
}

}  // namespace openwork
