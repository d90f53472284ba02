// INT8 and FP32 linear layers as steps of a program.
#include <algorithm>

#include "runtime/checks.h"
#include "runtime/linear.h"

namespace openwork {

namespace {

// y and residual of a layer with n output channels on x.
void check_around(const StepChecks& check, const Value& x, const Value& y, const Value* residual, int64_t n) {
  std::vector<int64_t> shape = x.dims;
  shape.back() = n;
  check.same_shape(y, "y", shape);
  if (residual) check.same_shape(*residual, "residual", shape);
}

void check_weights(const StepChecks& check, const LinearSpec& s, const KernelTable& table, int64_t k) {
  check.expect(!s.weights.empty() && s.weights.size() == s.max_rows.size(),
               "expected as many entries in max_rows as in weights, and at least one, found " +
                   std::to_string(s.max_rows.size()) + " and " + std::to_string(s.weights.size()) + ".");
  check.expect(s.max_rows.back() == -1, "expected -1 as the last entry of max_rows, found " + std::to_string(s.max_rows.back()) + ".");
  for (size_t i = 0; i + 1 < s.max_rows.size(); ++i)
    check.expect(s.max_rows[i] > (i ? s.max_rows[i - 1] : 0), "expected positive, increasing entries in max_rows before the last.");
  for (const auto& w : s.weights) {
    check.expect(w != nullptr, "expected packed weights, found none.");
    check.expect(w->n() == s.weights[0]->n() && w->k() == k,
                 "expected weights of shape [" + std::to_string(s.weights[0]->n()) + ", " + std::to_string(k) + "], found [" +
                     std::to_string(w->n()) + ", " + std::to_string(w->k()) + "].");
    check.expect(&w->table() == &table, "expected weights packed for " + std::string(table.isa) + ", found " + w->table().isa + ".");
  }
}

void add_residual(const StepChecks& check, const LinearSpec& s, const Value& residual, LinearEpilogue& e) {
  check.expect(residual.dtype != DType::i64, "expected residual of type f32 or u8, found i64.");
  e.residual = residual.dtype == DType::u8 ? Stored::u8 : Stored::f32;
  if (residual.dtype != DType::u8) return;
  check.positive(s.residual_quantization.scale, "residual_scale");
  check.zero_point(s.residual_quantization.zero_point, "residual_zero_point");
  e.residual_scale = s.residual_quantization.scale;
  e.residual_zero_point = s.residual_quantization.zero_point;
}

LinearEpilogue make_epilogue(const StepChecks& check, const LinearSpec& s, const Value& y) {
  const int64_t n = s.weights[0]->n();
  LinearEpilogue e;
  check.tensor(s.scale, "scale", {n});
  e.scale = check.finite(s.scale, "scale");
  for (const float scale : e.scale) check.expect(scale > 0, "expected positive numbers in scale, found " + std::to_string(scale) + ".");
  if (s.bias) {
    check.tensor(s.bias, "bias", {n});
    e.bias = check.finite(s.bias, "bias");
  }
  check.zero_point(s.x_zero_point, "x_zero_point");
  e.x_zero_point = s.x_zero_point;
  check.activation(s.activation);
  e.activation = s.activation;
  e.activation_last = s.activation_last;
  e.output = y.dtype == DType::u8 ? Stored::u8 : Stored::f32;
  e.inverse_scale = check.inverse_scales(y, s.quantization, n);
  e.y_zero_point = s.quantization.tensor.zero_point;
  if (s.residual != kAbsent) add_residual(check, s, check.value(s.residual, "residual"), e);
  return e;
}

using Layers = std::vector<LinearLayer>;

const LinearLayer& layer_for(const Layers& layers, const std::vector<int64_t>& max_rows, int64_t rows) {
  for (size_t i = 0; i + 1 < layers.size(); ++i)
    if (rows <= max_rows[i]) return layers[i];
  return layers.back();
}

// [strips of 16 channels][k][16], padded with zeros.
Floats pack_float(const Floats& weight, int64_t n, int64_t k) {
  Floats packed((n + kStripLanes - 1) / kStripLanes * kStripLanes * k);
  for (int64_t c = 0; c < n; ++c)
    for (int64_t i = 0; i < k; ++i) packed[(c / kStripLanes * k + i) * kStripLanes + c % kStripLanes] = weight[c * k + i];
  return packed;
}

struct FloatLayer {
  Floats weight, bias;
};

std::shared_ptr<const FloatLayer> make_float_layer(const StepChecks& check, const LinearFloatSpec& s, int64_t n, int64_t k) {
  auto layer = std::make_shared<FloatLayer>();
  layer->weight = pack_float(check.finite(s.weight, "weight"), n, k);
  if (s.bias) {
    check.tensor(s.bias, "bias", {n});
    layer->bias = check.finite(s.bias, "bias");
  }
  layer->bias.resize((n + kStripLanes - 1) / kStripLanes * kStripLanes);
  return layer;
}

}  // namespace

void Program::linear(const std::string& name, const LinearSpec& s) {
  const StepChecks check(*this, name, "linear");
  const Value& x = check.value(s.x, "x", DType::u8);
  const Value& y = check.output(s.y, "y");
  check_weights(check, s, table_, check.width(x, "x"));
  check_around(check, x, y, s.residual == kAbsent ? nullptr : &check.value(s.residual, "residual"), s.weights[0]->n());
  const LinearEpilogue epilogue = make_epilogue(check, s, y);
  auto layers = std::make_shared<Layers>();
  for (const auto& w : s.weights) layers->emplace_back(w, epilogue);

  add_step({name, {s.x, s.residual}, {s.y}, [s, layers](const Sizes& sizes) {
    const int64_t rows = sizes.rows(s.x);
    const LinearLayer* layer = &layer_for(*layers, s.max_rows, rows);
    const LinearPartition partition = layer->partition(rows, sizes.threads);
    Work work;
    work.units = partition.units();
    work.run = [s, layers, layer, partition](const Buffers& b, const Part& part) {
      const LinearBuffers buffers{b.get<const uint8_t>(s.x), b.get<const void>(s.residual), b.get<void>(s.y)};
      for (int64_t unit = part.begin; unit < part.end; ++unit) layer->run(buffers, partition.block(unit));
    };
    return work;
  }});
}

void Program::linear_float(const std::string& name, const LinearFloatSpec& s) {
  const StepChecks check(*this, name, "linear_float");
  const Value& x = check.value(s.x, "x", DType::f32);
  const Value& y = check.output(s.y, "y");
  const int64_t k = check.width(x, "x"), n = check.width(y, "y");
  check_around(check, x, y, s.residual == kAbsent ? nullptr : &check.value(s.residual, "residual", DType::f32), n);
  check.activation(s.activation);
  check.tensor(s.weight, "weight", {n, k});
  const auto layer = make_float_layer(check, s, n, k);
  const Quantizer quantizer = check.quantizer(y, s.quantization);
  const bool quantized = y.dtype == DType::u8;

  add_step({name, {s.x, s.residual}, {s.y}, [=, this](const Sizes& sizes) {
    const int64_t rows = sizes.rows(s.x);
    const LinearFloatArgs fixed{nullptr, rows, k, n, layer->weight.data(), layer->bias.data(), s.activation, s.activation_last,
                                nullptr, nullptr, quantized, quantizer};
    const int64_t blocks = (n + kStripLanes * kFloatStripBlock - 1) / (kStripLanes * kFloatStripBlock);
    const int64_t units = (rows + kFloatRowBlock - 1) / kFloatRowBlock * blocks;
    return make_work(units, 1, table_.linear_float, fixed, [s, layer](LinearFloatArgs& a, const Buffers& b, int) {
      a.x = b.get<const float>(s.x);
      a.residual = b.get<const float>(s.residual);
      a.y = b.get<void>(s.y);
    });
  }});
}

}  // namespace openwork
