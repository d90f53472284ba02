#include "runtime/steps/checks.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace openwork {

StepChecks::StepChecks(const Program& program, const std::string& name, const char* op)
    : program_(program), where_("Step \"" + name + "\" (" + op + "): ") {
  expect(!program.finished(), "the program is finished; add all steps before finish().");
}

void StepChecks::fail(const std::string& sentence) const { throw std::invalid_argument(where_ + sentence); }

const Value& StepChecks::value(int id, const char* role) const {
  const auto& values = program_.values();
  expect(id >= 0 && id < static_cast<int>(values.size()), "expected " + std::string(role) + " to be one of the " +
                                                              std::to_string(values.size()) + " values, found " +
                                                              std::to_string(id) + ".");
  return values[id];
}

const Value& StepChecks::value(int id, const char* role, DType dtype) const { return value(id, role, {dtype}); }

const Value& StepChecks::value(int id, const char* role, std::initializer_list<DType> dtypes) const {
  const Value& v = value(id, role);
  std::string names;
  for (const DType* dtype = dtypes.begin(); dtype != dtypes.end(); ++dtype)
    names += (names.empty() ? "" : dtype + 1 == dtypes.end() ? " or " : ", ") + std::string(dtype_name(*dtype));
  expect(std::count(dtypes.begin(), dtypes.end(), v.dtype) > 0,
         "expected " + std::string(role) + " of type " + names + ", found " + dtype_name(v.dtype) + ".");
  return v;
}

void StepChecks::same_shape(const Value& found, const char* role, const std::vector<int64_t>& expected) const {
  expect(found.dims == expected, "expected " + std::string(role) + " of shape " + shape_text(expected) + ", found " +
                                     shape_text(found.dims) + ".");
}

int64_t StepChecks::width(const Value& v, const char* role) const {
  expect(v.dims.back() > 0, "expected " + std::string(role) + " with a fixed last dimension, found " + shape_text(v.dims) + ".");
  return v.dims.back();
}

void StepChecks::tensor(const FloatTensor& tensor, const char* role, const std::vector<int64_t>& shape) const {
  expect(tensor.shape == shape, "expected " + std::string(role) + " of shape " + shape_text(shape) + ", found " +
                                    shape_text(tensor.shape) + ".");
}

Floats StepChecks::finite(const FloatTensor& tensor, const char* role) const {
  int64_t count = 1;
  for (const int64_t d : tensor.shape) count *= d;
  Floats copy(tensor.data, tensor.data + count);
  for (int64_t i = 0; i < count; ++i)
    expect(std::isfinite(copy[i]), "expected finite numbers in " + std::string(role) + ", found " + std::to_string(copy[i]) +
                                       " at element " + std::to_string(i) + ".");
  return copy;
}

void StepChecks::positive(float number, const char* role) const {
  expect(std::isfinite(number) && number > 0 && std::isfinite(1.0f / number),
         "expected " + std::string(role) + " to be a positive finite number, found " + std::to_string(number) + ".");
}

void StepChecks::zero_point(int number, const char* role) const {
  expect(number >= 0 && number <= 255,
         "expected " + std::string(role) + " from 0 to 255, found " + std::to_string(number) + ".");
}

void StepChecks::quantization(const OutputQuantization& quantization, const char* scale_role,
                              const char* zero_point_role) const {
  positive(quantization.scale, scale_role);
  zero_point(quantization.zero_point, zero_point_role);
}

void StepChecks::activation(const ActivationFunction& activation) const {
  const auto problem = activation_problem(activation);
  if (problem) fail(*problem);
}

Quantizer StepChecks::quantizer(const Value& y, const OutputQuantization& quantization) const {
  if (y.dtype != DType::u8) return {};
  this->quantization(quantization, "y_scale", "y_zero_point");
  return {1.0f / quantization.scale, quantization.zero_point};
}

Floats StepChecks::inverse_scales(const Value& y, const ChannelQuantization& quantization, int64_t n) const {
  const FloatTensor& multiplier = quantization.multiplier;
  if (y.dtype != DType::u8) {
    expect(!multiplier, "expected no y_multiplier, because the output is not quantized.");
    return {};
  }
  const float inverse = quantizer(y, quantization.tensor).inverse_scale;
  if (!multiplier) return Floats(static_cast<size_t>(n), inverse);
  tensor(multiplier, "y_multiplier", {n});
  Floats inverses = finite(multiplier, "y_multiplier");
  for (float& m : inverses) {
    positive(m, "y_multiplier");
    m *= inverse;
  }
  return inverses;
}

}  // namespace openwork
