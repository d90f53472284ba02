// INT8 convolutions as steps of a program: x is [batch, height, width, channels], the weights' max_rows count output pixels.
#include <stdexcept>

#include "runtime/convolution/layer.h"
#include "runtime/steps/products.h"

namespace openwork {

namespace {

bool same_layer(const WeightShape& a, const WeightShape& b) {
  return a.n == b.n && a.channels == b.channels && a.kernel_h == b.kernel_h && a.kernel_w == b.kernel_w && a.groups == b.groups;
}

std::string text(const WeightShape& w) {
  return shape_text({w.n, w.kernel_h, w.kernel_w, w.channels}) + " in " + std::to_string(w.groups) + " groups";
}

Operand read_image(const StepContext& c) {
  const Operand x = c.input("x", {DType::u8});
  const auto& dims = x.dims();
  c.expect(dims.size() == 4 && dims[1] > 0 && dims[2] > 0 && dims[3] > 0,
           "expected x of shape [batch, height, width, channels], all but the batch fixed, found " + shape_text(dims) + ".");
  return x;
}

const PackedWeights& check_weights(const StepContext& c, const std::vector<PackedTactic>& weights, int64_t channels) {
  const PackedWeights& first = *weights[0].weights;
  c.expect(first.shape().pixel() == channels, "expected weights of " + std::to_string(channels) +
                                                  " input channels in all groups, found " +
                                                  std::to_string(first.shape().pixel()) + ".");
  for (const auto& [w, rows] : weights) {
    c.expect(w->type() == Type::i8, "expected weights of i8, found " + std::string(type_name(w->type())) + ".");
    c.expect(same_layer(w->shape(), first.shape()),
             "expected weights of shape " + text(first.shape()) + ", found " + text(w->shape()) + ".");
  }
  return first;
}

// What refuses attributes knows of no step.
template <class Make>
auto made(const StepContext& c, const Make& make) {
  try {
    return make();
  } catch (const std::invalid_argument& e) {
    c.fail(e.what());
  }
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
  const Operand x = read_image(c);
  const auto& weights = c.weights();
  const PackedWeights& first = check_weights(c, weights, x.dims()[3]);
  const ConvAttributes attributes{c.list<2>("strides"), c.list<2>("dilations"), c.list<4>("pads")};
  // Of one image.
  const ConvGeometry g = made(c, [&, shape = first.shape()] {
    return make_geometry(conv_shape(shape, attributes), 1, x.dims()[1], x.dims()[2]);
  });
  const std::vector<int64_t> out{x.dims()[0], g.out_height, g.out_width, g.shape.n};
  const Operand y = c.output("y", kStoredDTypes).shaped(out);
  const Operand residual = c.optional_input("residual", kStoredDTypes).shaped(out);
  const LinearEpilogue epilogue = make_epilogue(c, first, y, residual);
  const auto layers = made(c, [&] { return make_layers(weights, epilogue, attributes); });

  return {c.name(), {{x.id, true}, residual.id}, {y.id},
          [layers, limits = max_rows(weights), x = x.id, residual = residual.id, y = y.id](const Sizes& sizes) {
    const auto& dims = sizes.dims[static_cast<size_t>(x)];
    const ConvLayer* layer = &(*layers)[tactic_for(limits, sizes.rows(y))];
    const auto plan = std::make_shared<const ConvPlan>(layer->plan(dims[0], dims[1], dims[2], sizes.threads));
    Work work;
    work.units = plan->partition.units();
    work.scratch_bytes = plan->scratch_bytes();
    work.run = [layers, layer, plan, x, residual, y](const Buffers& b, const Part& part) {
      const LinearBuffers buffers{b.get<const uint8_t>(x), b.get<const void>(residual), b.get<void>(y)};
      for (int64_t unit = part.begin; unit < part.end; ++unit)
        layer->run(*plan, buffers, unit, b.scratch_of<std::byte>(part.thread));
    };
    return work;
  }};
}

}  // namespace openwork
