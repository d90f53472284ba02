// INT8 convolutions as steps of a program.
#include <stdexcept>

#include "runtime/convolution/layer.h"
#include "runtime/steps/products.h"

namespace openwork {

namespace {

void check_image(const StepChecks& check, const Value& x) {
  check.expect(x.dims.size() == 4 && x.dims[1] > 0 && x.dims[2] > 0 && x.dims[3] > 0,
               "expected x of shape [batch, height, width, channels], all but the batch fixed, found " + shape_text(x.dims) + ".");
}

bool same_layer(const WeightShape& a, const WeightShape& b) {
  return a.n == b.n && a.channels == b.channels && a.kernel_h == b.kernel_h && a.kernel_w == b.kernel_w && a.groups == b.groups;
}

std::string text(const WeightShape& w) {
  return shape_text({w.n, w.kernel_h, w.kernel_w, w.channels}) + " in " + std::to_string(w.groups) + " groups";
}

void check_weights(const StepChecks& check, const LinearSpec& s, const KernelTable& table, int64_t channels) {
  check_tactics(check, s, table);
  const WeightShape& first = s.weights[0]->shape();
  check.expect(first.pixel() == channels, "expected weights of " + std::to_string(channels) + " input channels in all groups, found " +
                                              std::to_string(first.pixel()) + ".");
  for (const auto& w : s.weights) {
    check.expect(w->type() == Type::i8, "expected weights of i8, found " + std::string(type_name(w->type())) + ".");
    check.expect(same_layer(w->shape(), first), "expected weights of shape " + text(first) + ", found " + text(w->shape()) + ".");
  }
}

// Of one image.
ConvGeometry geometry_of(const StepChecks& check, const ConvSpec& spec, const Value& x) {
  try {
    return make_geometry(conv_shape(spec.layer.weights[0]->shape(), spec.attributes), 1, x.dims[1], x.dims[2]);
  } catch (const std::invalid_argument& e) {
    check.fail(e.what());
  }
}

using Layers = std::vector<ConvLayer>;

std::shared_ptr<const Layers> make_layers(const StepChecks& check, const ConvSpec& spec, const LinearEpilogue& epilogue) {
  auto layers = std::make_shared<Layers>();
  try {
    for (const auto& w : spec.layer.weights) layers->emplace_back(w, epilogue, spec.attributes);
  } catch (const std::invalid_argument& e) {
    check.fail(e.what());
  }
  return layers;
}

}  // namespace

void Program::conv(const std::string& name, const ConvSpec& spec) {
  const LinearSpec& s = spec.layer;
  const StepChecks check(*this, name, "conv");
  const Value& x = check.value(s.x, "x", DType::u8);
  const Value& y = check.value(s.y, "y", kStoredDTypes);
  check_image(check, x);
  check_weights(check, s, table_, x.dims[3]);
  const ConvGeometry g = geometry_of(check, spec, x);
  const std::vector<int64_t> out{x.dims[0], g.out_height, g.out_width, g.shape.n};
  check.same_shape(y, "y", out);
  if (s.residual != kAbsent) check.same_shape(check.value(s.residual, "residual"), "residual", out);
  const auto layers = make_layers(check, spec, make_epilogue(check, s, y));

  add_step({name, {{s.x, true}, s.residual}, {s.y}, [s, layers](const Sizes& sizes) {
    const auto& dims = sizes.dims[static_cast<size_t>(s.x)];
    const ConvLayer* layer = &(*layers)[tactic_for(s.max_rows, sizes.rows(s.y))];
    const auto plan = std::make_shared<const ConvPlan>(layer->plan(dims[0], dims[1], dims[2], sizes.threads));
    Work work;
    work.units = plan->partition.units();
    work.scratch_bytes = plan->scratch_bytes();
    work.run = [s, layers, layer, plan](const Buffers& b, const Part& part) {
      const LinearBuffers buffers{b.get<const uint8_t>(s.x), b.get<const void>(s.residual), b.get<void>(s.y)};
      for (int64_t unit = part.begin; unit < part.end; ++unit)
        layer->run(*plan, buffers, unit, b.scratch_of<std::byte>(part.thread));
    };
    return work;
  }});
}

}  // namespace openwork
