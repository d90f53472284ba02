#include "bind/epilogue.h"

#include <stdexcept>

namespace openwork::bind {

namespace {

// Where nothing is said, u8 where there is a scale, else f32.
Stored output_type(const GivenReader& given) {
  static constexpr const char* kNames[] = {"f32", "bf16", "u8", "s8"};
  const bool scaled = given.has("y_scale");
  if (!given.has("y_type")) return scaled ? Stored::u8 : Stored::f32;
  const std::string name = given.text("y_type");
  for (const Stored type : {Stored::f32, Stored::bf16, Stored::u8, Stored::s8})
    if (name == kNames[static_cast<int>(type)]) {
      given.expect(is_quantized(type) == scaled,
                   "expected a y_scale exactly where y_type is u8 or s8, found y_type \"" + name + "\".");
      return type;
    }
  given.fail("expected a y_type out of f32, bf16, u8 and s8, found \"" + name + "\".");
}

void add_output(const GivenReader& given, int64_t n, LinearEpilogue& e) {
  e.output = output_type(given);
  e.y_zero_point = given.zero_point("y", 0);
  if (!is_quantized(e.output)) return;
  e.inverse_scale.assign(static_cast<size_t>(n), 1.0f / given.number("y_scale").positive());
  if (given.has("lookup")) e.lookup = given.lookup_table("lookup");
}

void add_residual(const GivenReader& given, const std::vector<int64_t>& shape, LinearEpilogue& e) {
  e.residual_scale = given.number("residual_scale", 1.0f).positive();
  e.residual_zero_point = given.zero_point("residual", 0);
  if (!given.has("residual")) return;
  const DType dtype = given.tensor("residual", {DType::f32, DType::bf16, DType::u8}, shape).dtype;
  e.residual = dtype == DType::u8 ? Stored::u8 : dtype == DType::bf16 ? Stored::bf16 : Stored::f32;
}

}  // namespace

void expect_activations(DType x, Type weights) {
  const DType own = weights == Type::i8 ? DType::u8 : weights == Type::bf16 ? DType::bf16 : DType::f32;
  if (x == own) return;
  throw std::invalid_argument("Expected x of uint8 for weights of i8, of uint16 for bf16, of float32 for f32; these weights "
                              "are " + std::string(type_name(weights)) + ", and x is " + dtype_name(x) + ".");
}

LinearEpilogue read_epilogue(const GivenReader& given, const Floats1& scale, const std::vector<int64_t>& shape) {
  const int64_t n = shape.back();
  given.expect(shape_of(scale) == std::vector{n},
               "expected scale of shape " + shape_text({n}) + ", found " + shape_text(shape_of(scale)) + ".");
  LinearEpilogue e;
  e.scale.assign(scale.data(), scale.data() + n);
  e.bias = given.optional_floats("bias", {n});
  e.x_zero_point = given.zero_point("x", 0);
  e.activation = given.activation(given.text("activation", "none"));
  e.activation_last = given.flag("activation_last");
  add_output(given, n, e);
  add_residual(given, shape, e);
  given.expect_all_read();
  return e;
}

}  // namespace openwork::bind
