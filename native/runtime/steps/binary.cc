// The operators on the elements of two values, which are the rows OPENWORK_BINARY of kernels/table.inc.
#include "runtime/steps/context.h"

namespace openwork {

namespace {

using BinaryOp = void (*)(const BinaryArgs&, int64_t, int64_t);
using Constant = std::shared_ptr<const Floats>;

BinaryOp kernel_of(const StepContext& c) {
#define OPENWORK_BINARY(binary, word) \
  if (c.op() == #binary) return c.table().binary;
#include "kernels/table.inc"
#undef OPENWORK_BINARY
  c.fail("expected an operator on two values.");
}

BinarySide side_of(const StepContext& c, const std::string& name, const Operand& operand) {
  if (operand.dtype() == DType::f32) return {};
  const Quantization q = c.quantization(name);
  return {nullptr, true, q.scale, q.zero_point};
}

// A stored number for all elements, or one for each of the last dimension.
Constant read_constant(const StepContext& c, const Operand& a) {
  const Tensor& constant = c.tensor("constant", {DType::f32});
  if (constant.shape != std::vector<int64_t>{1}) c.tensor("constant", {DType::f32}, {a.width()});
  return std::make_shared<const Floats>(constant.get<float>(), constant.get<float>() + constant.elements());
}

void read_other(const StepContext& c, const Operand& a, const Operand& b, BinaryArgs& fixed) {
  fixed.b = side_of(c, "b", b);
  if (b.dims() == a.dims()) return;
  const auto& d = a.dims();
  b.shaped(d.size() == 4 ? std::vector<int64_t>{d[0], 1, 1, d[3]} : d);
  fixed.spread = BinaryArgs::Spread::rows;
}

// Whether the numbers of two values of bytes, added or multiplied, are such that a quantizer need not look for their ends.
bool bounded(const BinaryArgs& args) {
  if (!args.a.bytes || !args.b.bytes) return false;
  const double a = 255.0 * args.a.scale, b = 255.0 * args.b.scale;
  return std::max(a + b, a * b) * args.quantizer.inverse_scale < 0x1p30;
}

// relu and clip as the ends of the bytes, which is what they come to behind the quantizer.
void read_activation(const StepContext& c, const Operand& y, BinaryArgs& fixed) {
  const std::string name = c.text("activation", "none");
  const ActivationFunction f = c.activation(name);
  const bool relu = f.kind == Activation::relu, clip = f.kind == Activation::clip;
  c.expect(relu || clip || f.kind == Activation::none,
           "expected an activation out of none, relu and clip, found \"" + name + "\".");
  fixed.y_bytes = y.dtype() == DType::u8;
  if (!fixed.y_bytes) {
    fixed.activation = f;
    return;
  }
  fixed.quantizer = c.quantization("y").quantizer();
  fixed.bounded = bounded(fixed);
  if (relu || clip) fixed.low = quantized_end(relu ? 0.0f : f.alpha, fixed.quantizer);
  if (clip) fixed.high = quantized_end(f.beta, fixed.quantizer);
}

// values: a, b and y.
Work bind_binary(BinaryOp op, BinaryArgs fixed, const Constant& constant, const std::array<int, 3>& values, const Sizes& sizes) {
  const auto [a, b, y] = values;
  fixed.count = sizes.elements(a);
  if (sizes.lies_inside(y)) fixed.spread = BinaryArgs::Spread::rows;
  if (fixed.spread == BinaryArgs::Spread::rows) {
    fixed.unit = sizes.width(a);
    fixed.repeat = constant ? sizes.rows(a) : sizes.rows(a) / sizes.rows(b);
    fixed.y_stride = sizes.stride(y);
  }
  const int64_t units = (fixed.count + fixed.unit - 1) / fixed.unit;
  return make_work(units, even_chunk(units, sizes.threads), op, fixed,
                   [a, b, y, constant](BinaryArgs& args, const Buffers& buffers, int) {
                     args.a.data = buffers.get<const void>(a);
                     args.b.data = constant ? static_cast<const void*>(constant->data()) : buffers.get<const void>(b);
                     args.y = buffers.get<void>(y);
                   });
}

}  // namespace

Step make_binary(const StepContext& c) {
  const Operand a = c.input("a", {DType::f32, DType::u8}), b = c.optional_input("b", {DType::f32, DType::u8});
  const Operand y = c.output("y", {DType::f32, DType::u8}).shaped(a.dims());
  c.expect(static_cast<bool>(b) != c.has("constant"),
           "expected either an input b or a tensor constant, found " + std::string(b ? "both." : "neither."));
  BinaryArgs fixed;
  fixed.a = side_of(c, "a", a);
  Constant constant;
  if (b) {
    read_other(c, a, b, fixed);
  } else {
    constant = read_constant(c, a);
    fixed.spread = constant->size() == 1 ? BinaryArgs::Spread::one : BinaryArgs::Spread::rows;
  }
  read_activation(c, y, fixed);
  Step step{c.name(), {a.id, b.id}, {y.id},
          [op = kernel_of(c), fixed, constant, values = std::array{a.id, b.id, y.id}](const Sizes& sizes) {
    return bind_binary(op, fixed, constant, values, sizes);
  }};
  step.strided = fixed.spread != BinaryArgs::Spread::one;
  step.apart = true;
  step.in_place = {{a.id, y.id}};
  // One that is spread over a is read for many elements.
  if (b && b.dims() == a.dims()) step.in_place.push_back({b.id, y.id});
  return step;
}

}  // namespace openwork
