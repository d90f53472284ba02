#include "test/plain_epilogue.h"

#include <cmath>

namespace openwork::test {

namespace {

float min_of(float a, float b) { return a < b ? a : b; }
float max_of(float a, float b) { return a > b ? a : b; }

uint8_t plain_quantize(float v, int zero_point) {
  const float low = static_cast<float>(-zero_point), high = static_cast<float>(255 - zero_point);
  return static_cast<uint8_t>(static_cast<int>(min_of(max_of(std::nearbyint(v), low), high)) + zero_point);
}

// In units of the output: what is linear in the sums.
struct Folded {
  float scale, bias, factor;
  uint8_t low, high;
};

bool is_linear(const EpilogueSpec& s) {
  if (s.activation.kind == Activation::none) return true;
  if (s.activation.kind != Activation::relu && s.activation.kind != Activation::clip) return false;
  return !s.residual || s.activation_last;
}

Folded fold(const EpilogueSpec& s, size_t c) {
  const float inverse = s.inverse_scale[c];
  Folded f{s.scale[c] * inverse, (s.bias.empty() ? 0.0f : s.bias[c]) * inverse, inverse, 0, 255};
  if (s.residual == Stored::u8) {
    f.factor = s.residual_scale * inverse;
    if (s.residual_zero_point) f.bias = std::fma(static_cast<float>(-s.residual_zero_point), f.factor, f.bias);
  }
  if (s.activation.kind == Activation::relu) f.low = static_cast<uint8_t>(s.y_zero_point);
  if (s.activation.kind == Activation::clip) {
    f.low = plain_quantize(s.activation.alpha * inverse, s.y_zero_point);
    f.high = plain_quantize(s.activation.beta * inverse, s.y_zero_point);
  }
  return f;
}

bool can_fold(const EpilogueSpec& s) {
  bool finite = is_quantized(s.output) && is_linear(s);
  for (size_t c = 0; finite && c < s.scale.size(); ++c) {
    const Folded f = fold(s, c);
    finite = std::isfinite(f.scale) && std::isfinite(f.bias) && std::isfinite(f.factor);
  }
  return finite;
}

}  // namespace

// By comparing with both neighbours.
uint16_t plain_bf16(float v) {
  const uint32_t bits = to_bits(v);
  const auto down = static_cast<uint16_t>(bits >> 16);
  if (std::isnan(v)) return down | 0x40;
  const uint32_t rest = bits & 0xffff;
  const bool up = rest > 0x8000 || (rest == 0x8000 && (down & 1));
  return static_cast<uint16_t>(down + (up ? 1 : 0));
}

PlainEpilogue::PlainEpilogue(const EpilogueSpec& spec) : spec_(spec), scaled_(can_fold(spec)) {}

float PlainEpilogue::operator()(float sum, float residual, int64_t c) const {
  const auto at = static_cast<size_t>(c);
  if (scaled_) return scaled(sum, residual, at);
  const float v = value(sum, residual, at);
  return is_quantized(spec_.output) ? plain_quantize(v * spec_.inverse_scale[at], spec_.y_zero_point) : v;
}

float PlainEpilogue::scaled(float sum, float residual, size_t c) const {
  const Folded f = fold(spec_, c);
  float v = std::fma(sum, f.scale, f.bias);
  if (spec_.residual) v = std::fma(residual, f.factor, v);
  const uint8_t q = plain_quantize(v, spec_.y_zero_point);
  return q < f.low ? f.low : q > f.high ? f.high : q;
}

float PlainEpilogue::value(float sum, float residual, size_t c) const {
  const EpilogueSpec& s = spec_;
  float v = std::fma(sum, s.scale[c], s.bias.empty() ? 0.0f : s.bias[c]);
  if (!s.activation_last) v = plain_activation(s.activation, v);
  if (s.residual)
    v = s.residual == Stored::u8 ? std::fma(residual - static_cast<float>(s.residual_zero_point), s.residual_scale, v) : v + residual;
  return s.activation_last ? plain_activation(s.activation, v) : v;
}

}  // namespace openwork::test
