#include "runtime/steps/products.h"

#include <cmath>

namespace openwork {

namespace {

Stored stored(DType dtype) { return dtype == DType::u8 ? Stored::u8 : dtype == DType::bf16 ? Stored::bf16 : Stored::f32; }

void add_residual(const StepContext& c, const Operand& residual, LinearEpilogue& e) {
  if (!residual) return;
  e.residual = stored(residual.dtype());
  if (residual.dtype() != DType::u8) return;
  const Quantization quantization = c.quantization("residual");
  e.residual_scale = quantization.scale;
  e.residual_zero_point = quantization.zero_point;
}

void add_rounding(const StepContext& c, LinearEpilogue& e) {
  if (!c.has("sum_scale")) return;
  const Quantization quantization = c.quantization("sum");
  e.sum = quantization.quantizer();
  e.sum_scale = quantization.scale;
}

// Of sums of integers x_scale * weight_scale, rounded once. Sums of floats have no scale.
void add_scale(const StepContext& c, const PackedWeights& weights, LinearEpilogue& e) {
  if (weights.type() != Type::i8) {
    e.scale.assign(static_cast<size_t>(weights.n()), 1.0f);
    return;
  }
  const Quantization x = e.found_in_runs ? Quantization{1.0f, 0} : c.quantization("x");
  e.x_zero_point = x.zero_point;
  e.scale = c.floats("weight_scale", {weights.n()});
  for (float& scale : e.scale) {
    const float product = x.scale * scale;
    c.expect(std::isfinite(product) && product > 0, "expected positive finite numbers as x_scale * weight_scale, found " +
                                                        std::to_string(product) + " for a weight_scale of " +
                                                        std::to_string(scale) + ".");
    scale = product;
  }
}

void add_output(const StepContext& c, const Operand& y, int64_t n, LinearEpilogue& e) {
  e.output = stored(y.dtype());
  if (y.dtype() != DType::u8) return;
  const Quantization quantization = c.quantization("y");
  e.inverse_scale = c.inverse_scales(quantization, n);
  e.y_zero_point = quantization.zero_point;
  if (c.has("lookup")) e.lookup = c.lookup_table("lookup");
}

}  // namespace

std::vector<int64_t> max_rows(const std::vector<PackedTactic>& weights) {
  std::vector<int64_t> rows;
  for (const auto& tactic : weights) rows.push_back(tactic.max_rows);
  return rows;
}

size_t tactic_for(const std::vector<int64_t>& max_rows, int64_t rows) {
  size_t tactic = 0;
  while (tactic + 1 < max_rows.size() && rows > max_rows[tactic]) ++tactic;
  return tactic;
}

LinearEpilogue make_epilogue(const StepContext& c, const PackedWeights& weights, const Operand& y, const Operand& residual,
                             bool found_in_runs) {
  LinearEpilogue e;
  e.found_in_runs = found_in_runs;
  add_scale(c, weights, e);
  e.bias = c.optional_floats("bias", {weights.n()});
  e.activation = c.activation(c.text("activation"));
  e.activation_last = c.flag("activation_last");
  add_output(c, y, weights.n(), e);
  add_residual(c, residual, e);
  add_rounding(c, e);
  return e;
}

}  // namespace openwork
