// Steps over rows and single elements: layer norm, pooling, L2 norm, quantize and back, tables, add, activations.
#include <memory>

#include "runtime/steps/checks.h"

namespace openwork {

namespace {

using ElementOp = void (*)(const ElementArgs&, int64_t, int64_t);

struct ElementStep {
  int a, b, y;
  ElementOp op;
  Quantizer quantizer = {};
  ActivationFunction activation = {};
};

Step element_step(const std::string& name, const ElementStep& s) {
  return {name, {s.a, s.b}, {s.y}, [s](const Sizes& sizes) {
    const int64_t count = sizes.elements(s.a), units = (count + kElementBlock - 1) / kElementBlock;
    const ElementArgs fixed{nullptr, nullptr, count, nullptr, s.quantizer, s.activation};
    return make_work(units, even_chunk(units, sizes.threads), s.op, fixed, [s](ElementArgs& a, const Buffers& b, int) {
      a.a = b.get<const float>(s.a);
      a.b = b.get<const float>(s.b);
      a.y = b.get<void>(s.y);
    });
  }};
}

// An input and an output of the same shape.
void check_element(const StepChecks& check, int x, int y, DType output, DType input = DType::f32) {
  const Value& from = check.value(x, "x", input);
  check.same_shape(check.value(y, "y", output), "y", from.dims);
}

}  // namespace

void Program::layer_norm(const std::string& name, const LayerNormSpec& s) {
  const StepChecks check(*this, name, "layer_norm");
  const Value& x = check.value(s.x, "x", DType::f32);
  const int64_t width = check.width(x, "x");
  check.expect(s.y != kAbsent || s.yq != kAbsent, "expected an output y, yq or both, found neither.");
  if (s.y != kAbsent) check.same_shape(check.value(s.y, "y", DType::f32), "y", x.dims);
  LayerNormArgs fixed{};
  const auto inverse_scale = std::make_shared<Floats>();
  if (s.yq != kAbsent) {
    const Value& yq = check.value(s.yq, "yq", DType::u8);
    check.same_shape(yq, "yq", x.dims);
    *inverse_scale = check.inverse_scales(yq, s.quantization, width);
    fixed.inverse_scale = inverse_scale->data();
    fixed.y_zero_point = s.quantization.tensor.zero_point;
  }
  check.tensor(s.gamma, "gamma", {width});
  check.tensor(s.beta, "beta", {width});
  const auto gamma = std::make_shared<const Floats>(check.finite(s.gamma, "gamma"));
  const auto beta = std::make_shared<const Floats>(check.finite(s.beta, "beta"));
  check.positive(s.epsilon, "epsilon");
  fixed.width = width;
  fixed.epsilon = s.epsilon;
  fixed.gamma = gamma->data();
  fixed.beta = beta->data();

  add_step({name, {s.x}, {s.y, s.yq}, [this, fixed, gamma, beta, inverse_scale, x = s.x, y = s.y, yq = s.yq](const Sizes& sizes) {
    const int64_t rows = sizes.rows(x);
    return make_work(rows, even_chunk(rows, sizes.threads), table_.layer_norm, fixed,
                     [x, y, yq](LayerNormArgs& a, const Buffers& b, int) {
                       a.x = b.get<const float>(x);
                       a.y = b.get<float>(y);
                       a.yq = b.get<uint8_t>(yq);
                     });
  }});
}

void Program::mean_pool(const std::string& name, int x, int mask, int y) {
  const StepChecks check(*this, name, "mean_pool");
  const Value& from = check.value(x, "x", DType::f32);
  check.expect(from.dims.size() == 3, "expected x of shape [B, L, H], found " + shape_text(from.dims) + ".");
  check.same_shape(check.value(mask, "mask", DType::i64), "mask", {from.dims[0], from.dims[1]});
  check.same_shape(check.value(y, "y", DType::f32), "y", {from.dims[0], from.dims[2]});
  add_step({name, {x, mask}, {y}, [this, x, mask, y](const Sizes& sizes) {
    const int64_t width = sizes.width(x);
    const int64_t units = sizes.dims[x][0] * ((width + kPoolBlock - 1) / kPoolBlock);
    MeanPoolArgs fixed{nullptr, nullptr, sizes.dims[x][1], width, nullptr};
    return make_work(units, even_chunk(units, sizes.threads), table_.mean_pool, fixed,
                     [x, mask, y](MeanPoolArgs& a, const Buffers& b, int) {
                       a.x = b.get<const float>(x);
                       a.mask = b.get<const int64_t>(mask);
                       a.y = b.get<float>(y);
                     });
  }});
}

void Program::l2_normalize(const std::string& name, int x, int y, float epsilon) {
  const StepChecks check(*this, name, "l2_normalize");
  check_element(check, x, y, DType::f32);
  check.positive(epsilon, "epsilon");
  add_step({name, {x}, {y}, [this, x, y, epsilon](const Sizes& sizes) {
    const int64_t rows = sizes.rows(x);
    const L2NormalizeArgs fixed{nullptr, sizes.width(x), epsilon, nullptr};
    return make_work(rows, even_chunk(rows, sizes.threads), table_.l2_normalize, fixed,
                     [x, y](L2NormalizeArgs& a, const Buffers& b, int) {
                       a.x = b.get<const float>(x);
                       a.y = b.get<float>(y);
                     });
  }});
}

void Program::quantize(const std::string& name, int x, int y, const OutputQuantization& quantization) {
  const StepChecks check(*this, name, "quantize");
  check_element(check, x, y, DType::u8);
  add_step(element_step(name, {x, kAbsent, y, table_.quantize, check.quantizer(values_[y], quantization), {}}));
}

void Program::dequantize(const std::string& name, int x, int y, const OutputQuantization& quantization) {
  const StepChecks check(*this, name, "dequantize");
  check_element(check, x, y, DType::f32, DType::u8);
  check.quantization(quantization, "scale", "zero_point");
  add_step({name, {x}, {y}, [this, x, y, quantization](const Sizes& sizes) {
    const int64_t count = sizes.elements(x), units = (count + kElementBlock - 1) / kElementBlock;
    const DequantizeArgs fixed{nullptr, count, quantization.scale, quantization.zero_point, nullptr};
    return make_work(units, even_chunk(units, sizes.threads), table_.dequantize, fixed,
                     [x, y](DequantizeArgs& a, const Buffers& b, int) {
                       a.x = b.get<const uint8_t>(x);
                       a.y = b.get<float>(y);
                     });
  }});
}

void Program::lookup(const std::string& name, int x, int y, const LookupTable& table) {
  const StepChecks check(*this, name, "lookup");
  check_element(check, x, y, DType::u8, DType::u8);
  const auto held = std::make_shared<const Aligned<uint8_t>>(table.begin(), table.end());
  add_step({name, {x}, {y}, [this, x, y, held](const Sizes& sizes) {
    const int64_t count = sizes.elements(x), units = (count + kElementBlock - 1) / kElementBlock;
    const LookupArgs fixed{nullptr, held->data(), count, nullptr};
    return make_work(units, even_chunk(units, sizes.threads), table_.lookup, fixed,
                     [x, y, held](LookupArgs& a, const Buffers& b, int) {
                       a.x = b.get<const uint8_t>(x);
                       a.y = b.get<uint8_t>(y);
                     });
  }});
}

void Program::add(const std::string& name, int a, int b, int y) {
  const StepChecks check(*this, name, "add");
  const Value& first = check.value(a, "a", DType::f32);
  check.same_shape(check.value(b, "b", DType::f32), "b", first.dims);
  check.same_shape(check.value(y, "y", DType::f32), "y", first.dims);
  add_step(element_step(name, {a, b, y, table_.add, {}, {}}));
}

void Program::activate(const std::string& name, int x, int y, const ActivationFunction& activation) {
  const StepChecks check(*this, name, "activate");
  check_element(check, x, y, DType::f32);
  check.activation(activation);
  add_step(element_step(name, {x, kAbsent, y, table_.activate, {}, activation}));
}

}  // namespace openwork
