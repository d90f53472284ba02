#include "runtime/steps/products.h"

namespace openwork {

namespace {

Stored stored(DType dtype) { return dtype == DType::u8 ? Stored::u8 : dtype == DType::bf16 ? Stored::bf16 : Stored::f32; }

void add_residual(const StepChecks& check, const LinearSpec& s, const Value& residual, LinearEpilogue& e) {
  e.residual = stored(residual.dtype);
  if (residual.dtype != DType::u8) return;
  check.quantization(s.residual_quantization, "residual_scale", "residual_zero_point");
  e.residual_scale = s.residual_quantization.scale;
  e.residual_zero_point = s.residual_quantization.zero_point;
}

// Sums of floats have no scale unless one is given.
void add_scale(const StepChecks& check, const LinearSpec& s, int64_t n, LinearEpilogue& e) {
  const bool integers = s.weights[0]->type() == Type::i8;
  check.expect(integers || s.x_zero_point == 0,
               "expected an x_zero_point of 0 because x is not quantized, found " + std::to_string(s.x_zero_point) + ".");
  if (!s.scale && !integers) {
    e.scale.assign(static_cast<size_t>(n), 1.0f);
    return;
  }
  check.tensor(s.scale, "scale", {n});
  e.scale = check.finite(s.scale, "scale");
  for (const float scale : e.scale) check.expect(scale > 0, "expected positive numbers in scale, found " + std::to_string(scale) + ".");
}

}  // namespace

void check_tactics(const StepChecks& check, const LinearSpec& s, const KernelTable& table) {
  check.expect(!s.weights.empty() && s.weights.size() == s.max_rows.size(),
               "expected as many entries in max_rows as in weights, and at least one, found " +
                   std::to_string(s.max_rows.size()) + " and " + std::to_string(s.weights.size()) + ".");
  check.expect(s.max_rows.back() == -1, "expected -1 as the last entry of max_rows, found " + std::to_string(s.max_rows.back()) + ".");
  for (size_t i = 0; i + 1 < s.max_rows.size(); ++i)
    check.expect(s.max_rows[i] > (i ? s.max_rows[i - 1] : 0), "expected positive, increasing entries in max_rows before the last.");
  for (const auto& w : s.weights) {
    check.expect(w != nullptr, "expected packed weights, found none.");
    check.expect(&w->table() == &table, "expected weights packed for " + std::string(table.isa) + ", found " + w->table().isa + ".");
  }
}

size_t tactic_for(const std::vector<int64_t>& max_rows, int64_t rows) {
  size_t tactic = 0;
  while (tactic + 1 < max_rows.size() && rows > max_rows[tactic]) ++tactic;
  return tactic;
}

LinearEpilogue make_epilogue(const StepChecks& check, const LinearSpec& s, const Value& y) {
  const int64_t n = s.weights[0]->n();
  LinearEpilogue e;
  add_scale(check, s, n, e);
  if (s.bias) {
    check.tensor(s.bias, "bias", {n});
    e.bias = check.finite(s.bias, "bias");
  }
  check.zero_point(s.x_zero_point, "x_zero_point");
  e.x_zero_point = s.x_zero_point;
  check.activation(s.activation);
  e.activation = s.activation;
  e.activation_last = s.activation_last;
  e.output = stored(y.dtype);
  e.inverse_scale = check.inverse_scales(y, s.quantization, n);
  e.y_zero_point = s.quantization.tensor.zero_point;
  if (s.residual != kAbsent) add_residual(check, s, check.value(s.residual, "residual", kStoredDTypes), e);
  return e;
}

}  // namespace openwork
