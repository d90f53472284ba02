#include "runtime/given.h"

#include <cmath>
#include <stdexcept>

namespace openwork {

namespace {

const char* kind_of(const Attribute& attribute) {
  static constexpr const char* kKinds[] = {"an integer", "a number", "a text", "a list of integers"};
  return kKinds[attribute.index()];
}

}  // namespace

int64_t Tensor::elements() const {
  int64_t count = 1;
  for (const int64_t d : shape) count *= d;
  return count;
}

void Place::fail(const std::string& sentence) const { throw std::invalid_argument(text_ + sentence); }

const Number& Number::positive() const {
  place_.expect(std::isfinite(value_) && value_ > 0 && std::isfinite(1.0f / value_),
                "expected " + name_ + " to be a positive finite number, found " + std::to_string(value_) + ".");
  return *this;
}

const Number& Number::finite() const {
  place_.expect(std::isfinite(value_), "expected " + name_ + " to be a finite number, found " + std::to_string(value_) + ".");
  return *this;
}

const Integer& Integer::within(int64_t low, int64_t high) const {
  place_.expect(value_ >= low && value_ <= high, "expected " + name_ + " from " + std::to_string(low) + " to " +
                                                     std::to_string(high) + ", found " + std::to_string(value_) + ".");
  return *this;
}

bool GivenReader::has(const std::string& name) const {
  return given_.tensors.contains(name) || given_.attributes.contains(name);
}

// What stands there as a T, or null where it is of another kind.
template <class T>
const T* GivenReader::find(const std::string& name, const char* kind) const {
  const auto found = given_.attributes.find(name);
  expect(found != given_.attributes.end(), "expected " + std::string(kind) + " as the attribute " + name + ", found none.");
  read_.insert(name);
  return std::get_if<T>(&found->second);
}

void GivenReader::refuse_kind(const std::string& name, const char* kind) const {
  fail("expected " + std::string(kind) + " as the attribute " + name + ", found " + kind_of(given_.attributes.at(name)) + ".");
}

Number GivenReader::number(const std::string& name, std::optional<float> otherwise) const {
  if (otherwise && !has(name)) return {*this, name, *otherwise};
  if (const auto* value = find<double>(name, "a number")) return {*this, name, static_cast<float>(*value)};
  const auto* value = find<int64_t>(name, "a number");
  if (!value) refuse_kind(name, "a number");
  return {*this, name, static_cast<float>(*value)};
}

Integer GivenReader::integer(const std::string& name, std::optional<int64_t> otherwise) const {
  if (otherwise && !has(name)) return {*this, name, *otherwise};
  const auto* value = find<int64_t>(name, "an integer");
  if (!value) refuse_kind(name, "an integer");
  return {*this, name, *value};
}

std::string GivenReader::text(const std::string& name, std::optional<std::string> otherwise) const {
  if (otherwise && !has(name)) return *otherwise;
  const auto* value = find<std::string>(name, "a text");
  if (!value) refuse_kind(name, "a text");
  return *value;
}

bool GivenReader::flag(const std::string& name) const { return integer(name, 0).within(0, 1) == 1; }

const std::vector<int64_t>& GivenReader::integers(const std::string& name, size_t least, size_t most) const {
  const auto* value = find<std::vector<int64_t>>(name, "a list of integers");
  if (!value) refuse_kind(name, "a list of integers");
  const std::string count = least == most ? std::to_string(most) : std::to_string(least) + " to " + std::to_string(most);
  expect(value->size() >= least && value->size() <= most, "expected " + count + " integers as the attribute " + name + ", found " +
                                     std::to_string(value->size()) + ".");
  return *value;
}

int32_t GivenReader::zero_point(const std::string& name, std::optional<int64_t> otherwise) const {
  return static_cast<int32_t>(integer(name + "_zero_point", otherwise).within(0, 255));
}

Quantization GivenReader::quantization(const std::string& name) const {
  return {number(name + "_scale").positive(), zero_point(name)};
}

ActivationFunction GivenReader::activation(const std::string& name) const {
  try {
    ActivationFunction found = activation_named(name);
    const int numbers = activation_numbers(found.kind);
    if (numbers > 0) found.alpha = number("alpha", found.alpha);
    if (numbers > 1) found.beta = number("beta", found.beta);
    if (const auto problem = activation_problem(found)) fail(*problem);
    return found;
  } catch (const UnknownActivation& e) {
    fail(e.what());
  }
}

const Tensor& GivenReader::tensor(const std::string& name, DTypes dtypes) const {
  const auto found = given_.tensors.find(name);
  expect(found != given_.tensors.end(), "expected a tensor " + name + ", found none.");
  read_.insert(name);
  const Tensor& tensor = found->second;
  expect(std::count(dtypes.begin(), dtypes.end(), tensor.dtype) > 0,
         "expected " + name + " of type " + dtype_names(dtypes) + ", found " + dtype_name(tensor.dtype) + ".");
  return tensor;
}

const Tensor& GivenReader::tensor(const std::string& name, DTypes dtypes, const std::vector<int64_t>& shape) const {
  const Tensor& found = tensor(name, dtypes);
  expect(found.shape == shape,
         "expected " + name + " of shape " + shape_text(shape) + ", found " + shape_text(found.shape) + ".");
  return found;
}

Floats GivenReader::floats(const std::string& name, const std::vector<int64_t>& shape) const {
  const Tensor& found = tensor(name, {DType::f32}, shape);
  Floats copy(found.get<float>(), found.get<float>() + found.elements());
  for (size_t i = 0; i < copy.size(); ++i)
    expect(std::isfinite(copy[i]), "expected finite numbers in " + name + ", found " + std::to_string(copy[i]) +
                                       " at element " + std::to_string(i) + ".");
  return copy;
}

Floats GivenReader::optional_floats(const std::string& name, const std::vector<int64_t>& shape) const {
  return has(name) ? floats(name, shape) : Floats{};
}

LookupTable GivenReader::lookup_table(const std::string& name) const {
  LookupTable table;
  std::copy_n(tensor(name, {DType::u8}, {256}).get<uint8_t>(), table.size(), table.begin());
  return table;
}

Floats GivenReader::inverse_scales(const Quantization& y, int64_t n) const {
  const float inverse = y.quantizer().inverse_scale;
  if (!has("y_multiplier")) return Floats(static_cast<size_t>(n), inverse);
  Floats inverses = floats("y_multiplier", {n});
  for (float& m : inverses) m = Number(*this, "y_multiplier", m).positive() * inverse;
  return inverses;
}

void GivenReader::expect_all_read() const {
  for (const auto& [name, tensor] : given_.tensors)
    expect(read_.contains(name), "expected no tensor " + name + ", because nothing here reads it; leave it out.");
  for (const auto& [name, attribute] : given_.attributes)
    expect(read_.contains(name), "expected no attribute " + name + ", because nothing here reads it; leave it out.");
}

}  // namespace openwork
