#include "runtime/epilogue.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace openwork {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct NamedActivation {
  const char* name;
  ActivationFunction function;
};
constexpr NamedActivation kActivations[] = {
    {"none", {Activation::none}},
    {"relu", {Activation::relu}},
    {"relu6", {Activation::clip, 0.0f, 6.0f}},
    {"clip", {Activation::clip, -kInfinity, kInfinity}},
    {"leaky_relu", {Activation::leaky_relu, 0.01f}},
    {"hard_sigmoid", {Activation::hard_sigmoid, 0.2f, 0.5f}},
    {"hard_swish", {Activation::hard_swish, 1.0f / 6.0f, 0.5f}},
    {"gelu", {Activation::gelu}},
    {"gelu_tanh", {Activation::gelu_tanh}},
    {"silu", {Activation::silu}},
    {"sigmoid", {Activation::sigmoid}},
    {"tanh", {Activation::tanh}},
};

void expect(bool holds, const char* sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

bool finite(const Floats& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

void check(const EpilogueSpec& s) {
  expect(s.residual != Stored::s8, "Expected a residual of f32, bf16 or u8, found s8; add 128 to its bytes and zero point.");
  expect(!s.lookup || is_quantized(s.output), "Expected a lookup table only where the output is quantized.");
  expect(!s.sum || (s.residual && (s.activation_last || s.activation.kind == Activation::none)),
         "Expected sums that are rounded only where a residual is added to them, and an activation only behind it.");
  if (const auto problem = activation_problem(s.activation)) throw std::invalid_argument("Activation: " + *problem);
}

// What is linear in the sums up to the ends of its range: docs/arithmetic.md, "Epilogue".
bool linear(const EpilogueSpec& s) {
  const Activation kind = s.activation.kind;
  if (kind == Activation::none) return true;
  return (kind == Activation::relu || kind == Activation::clip) && (!s.residual || s.activation_last);
}

}  // namespace

PreparedEpilogue::PreparedEpilogue(const EpilogueSpec& spec, int64_t channels)
    : n_(spec.scale.size()), scale_(spec.scale), bias_(spec.bias), inverse_(spec.inverse_scale) {
  check(spec);
  fixed_.activation = spec.activation;
  fixed_.activation_last = spec.activation_last;
  fixed_.output = spec.output;
  fixed_.y_zero_point = spec.y_zero_point;
  bias_.resize(n_);
  prepare_residual(spec);
  if (is_quantized(spec.output)) prepare_output(spec);
  if (spec.sum) prepare_rounded(spec);
  const size_t padded = static_cast<size_t>(channels + kEpilogueSlack);
  for (Floats* array : {&scale_, &bias_, &factor_, &inverse_, &sum_factor_, &sum_bias_}) array->resize(padded);
  for (auto* array : {&low_, &high_}) array->resize(padded);
}

void PreparedEpilogue::prepare_residual(const EpilogueSpec& spec) {
  fixed_.residual = spec.residual.value_or(Stored::f32);
  const bool bytes = fixed_.residual == Stored::u8;
  factor_.assign(n_, bytes ? spec.residual_scale : 1.0f);
  fixed_.residual_zero_point = bytes ? spec.residual_zero_point : 0;
}

void PreparedEpilogue::prepare_output(const EpilogueSpec& spec) {
  low_.assign(n_, 0);
  high_.assign(n_, 255);
  if (linear(spec) && !spec.sum) fixed_.scaled = scale_to_output(spec);
  if (spec.lookup) lookup_.assign(spec.lookup->begin(), spec.lookup->end());
}

// False, with nothing changed, where a number would leave binary32.
bool PreparedEpilogue::scale_to_output(const EpilogueSpec& spec) {
  Floats scale = scale_, bias = bias_, factor = factor_;
  for (size_t c = 0; c < n_; ++c) {
    scale[c] *= inverse_[c];
    factor[c] *= inverse_[c];
    bias[c] *= inverse_[c];
    if (fixed_.residual_zero_point) bias[c] = std::fma(static_cast<float>(-fixed_.residual_zero_point), factor[c], bias[c]);
  }
  if (!finite(scale) || !finite(bias) || !finite(factor)) return false;
  take_ends(spec);
  scale_ = scale, bias_ = bias, factor_ = factor;
  inverse_.assign(n_, 1.0f);
  fixed_.activation = {};
  fixed_.residual_zero_point = 0;
  fixed_.bounded = bounded(spec);
  return true;
}

// The arrays in units of the u8 that the sums become; a clamp behind the residual becomes the ends of the output's u8.
void PreparedEpilogue::prepare_rounded(const EpilogueSpec& spec) {
  fixed_.rounded = true;
  sum_factor_.assign(n_, spec.sum_scale);
  sum_bias_.assign(n_, 0.0f);
  fixed_.sum_zero_point = spec.sum->zero_point;
  for (size_t c = 0; c < n_; ++c) {
    scale_[c] *= spec.sum->inverse_scale;
    bias_[c] *= spec.sum->inverse_scale;
  }
  expect(finite(scale_) && finite(bias_), "Expected sums whose numbers in units of their rounding are finite.");
  if (is_quantized(spec.output) && spec.residual == Stored::u8 && linear(spec)) fixed_.scaled = scale_rounded(spec);
}

// False, with nothing changed, where a number would leave binary32 or the sum INT32.
bool PreparedEpilogue::scale_rounded(const EpilogueSpec& spec) {
  Floats sum_factor = sum_factor_, factor = factor_, bias = sum_bias_;
  bool bounded = true;
  for (size_t c = 0; c < n_; ++c) {
    sum_factor[c] *= inverse_[c];
    factor[c] *= inverse_[c];
    bias[c] = static_cast<float>(-fixed_.residual_zero_point) * factor[c];
    bounded &= 255.0 * (double{std::fabs(sum_factor[c])} + 2.0 * std::fabs(factor[c])) < 0x1p30;
  }
  if (!bounded || !finite(sum_factor) || !finite(factor)) return false;
  take_ends(spec);
  sum_factor_ = sum_factor, factor_ = factor, sum_bias_ = bias;
  inverse_.assign(n_, 1.0f);
  fixed_.activation = {};
  fixed_.residual_zero_point = 0;
  fixed_.bounded = true;
  return true;
}

// The ends of a clamp as those of each channel's u8.
void PreparedEpilogue::take_ends(const EpilogueSpec& spec) {
  const bool clip = spec.activation.kind == Activation::clip, relu = spec.activation.kind == Activation::relu;
  for (size_t c = 0; c < n_; ++c) {
    if (clip || relu) low_[c] = quantized_end(clip ? spec.activation.alpha : 0.0f, {inverse_[c], spec.y_zero_point});
    if (clip) high_[c] = quantized_end(spec.activation.beta, {inverse_[c], spec.y_zero_point});
  }
}

// Whether no INT32 sum and no u8 makes a number that INT32 does not hold; half of a unit and the roundings aside.
bool PreparedEpilogue::bounded(const EpilogueSpec& spec) const {
  constexpr double kMost = 0x1p31 * (1 - 0x1p-20);
  for (size_t c = 0; c < n_; ++c) {
    const double residual = spec.residual == Stored::u8 ? 255.0 * std::fabs(factor_[c]) : 0.0;
    if (0x1p31 * std::fabs(scale_[c]) + std::fabs(bias_[c]) + residual > kMost) return false;
  }
  return true;
}

Epilogue PreparedEpilogue::view() const {
  Epilogue e = fixed_;
  e.scale = scale_.data();
  e.bias = bias_.data();
  e.residual_factor = factor_.data();
  e.inverse_scale = inverse_.data();
  e.sum_factor = sum_factor_.data();
  e.sum_bias = sum_bias_.data();
  e.low = low_.data();
  e.high = high_.data();
  e.lookup = lookup_.empty() ? nullptr : lookup_.data();
  return e;
}

uint8_t quantized_end(float end, const Quantizer& q) {
  float v = std::nearbyint(end * q.inverse_scale);
  v = v > static_cast<float>(-q.zero_point) ? v : static_cast<float>(-q.zero_point);
  v = v < static_cast<float>(255 - q.zero_point) ? v : static_cast<float>(255 - q.zero_point);
  return static_cast<uint8_t>(static_cast<int>(v) + q.zero_point);
}

std::optional<std::string> activation_problem(const ActivationFunction& activation) {
  if (std::isnan(activation.alpha) || std::isnan(activation.beta))
    return "expected numbers as the activation's alpha and beta, found NaN.";
  if (activation.kind == Activation::clip && activation.alpha > activation.beta)
    return "expected a clip whose low end, alpha, is at most its high end, beta, found " + std::to_string(activation.alpha) +
           " and " + std::to_string(activation.beta) + ".";
  return std::nullopt;
}

int activation_numbers(Activation kind) {
  if (kind == Activation::clip || kind == Activation::hard_sigmoid) return 2;
  return kind == Activation::leaky_relu ? 1 : 0;
}

ActivationFunction activation_named(const std::string& name) {
  std::string known;
  for (const auto& activation : kActivations) {
    if (name == activation.name) return activation.function;
    known += (known.empty() ? "" : ", ") + std::string(activation.name);
  }
  throw UnknownActivation("Expected one of the activations " + known + ", found \"" + name + "\".");
}

}  // namespace openwork
