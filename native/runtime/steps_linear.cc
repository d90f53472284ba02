// INT8 and FP32 linear layers as steps of a program.
#include "runtime/layer_steps.h"

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
  check_tactics(check, s, table);
  for (const auto& w : s.weights) {
    check.expect(w->type() == Type::i8 && w->shape().is_matrix(), "expected the weights of a matrix of i8, found those of a convolution or of " +
                                                                       std::string(type_name(w->type())) + ".");
    check.expect(w->n() == s.weights[0]->n() && w->k() == k,
                 "expected weights of shape [" + std::to_string(s.weights[0]->n()) + ", " + std::to_string(k) + "], found [" +
                     std::to_string(w->n()) + ", " + std::to_string(w->k()) + "].");
  }
}

using Layers = std::vector<LinearLayer>;

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

  add_step({name, {{s.x, true}, s.residual}, {s.y}, [s, layers](const Sizes& sizes) {
    const int64_t rows = sizes.rows(s.x);
    const LinearLayer* layer = &(*layers)[tactic_for(s.max_rows, rows)];
    const LinearPartition partition = layer->partition(rows, sizes.threads);
    Work work;
    work.units = partition.units();
    work.scratch_bytes = layer->scratch_bytes();
    work.run = [s, layers, layer, partition](const Buffers& b, const Part& part) {
      const LinearBuffers buffers{b.get<const uint8_t>(s.x), b.get<const void>(s.residual), b.get<void>(s.y)};
      for (int64_t unit = part.begin; unit < part.end; ++unit) layer->run(buffers, partition.block(unit), b.scratch_of<std::byte>(part.thread));
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
