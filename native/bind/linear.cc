// Packed weights, and single products for tests and timing.
#include "bind/arrays.h"
#include "runtime/time_linear.h"

namespace openwork::bind {

namespace {

using Weights = std::shared_ptr<const PackedWeights>;

void expect(bool holds, const std::string& sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

// s8, BF16 as its upper 16 bits, or binary32.
using AnyWeight = AnyArray;

Type type_of(const AnyWeight& weight) {
  if (weight.dtype() == nb::dtype<int8_t>()) return Type::i8;
  if (weight.dtype() == nb::dtype<uint16_t>()) return Type::bf16;
  expect(weight.dtype() == nb::dtype<float>(), "Expected weights of int8, of uint16 (BF16), or of float32.");
  return Type::f32;
}

Weights pack(const AnyWeight& weight, const std::string& form, const std::string& isa, int64_t groups, bool merged) {
  const Type type = type_of(weight);
  expect(weight.ndim() == 2 || weight.ndim() == 4,
         "Expected weights of shape [n, k], or [n, kernel height, kernel width, channels of a group], found " +
             std::to_string(weight.ndim()) + " dimensions.");
  const auto size = [&](size_t d) { return static_cast<int64_t>(weight.shape(d)); };
  const bool matrix = weight.ndim() == 2;
  const WeightShape shape = matrix ? WeightShape{size(0), size(1)} : WeightShape{size(0), size(3), size(1), size(2), groups, merged};
  expect(!matrix || (groups == 1 && !merged), "Expected a convolution's weights of 4 dimensions where groups or merged taps are given.");
  return PackedWeights::pack(shape, type, weight.data(), form_named(form), choose_table(isa));
}

struct LinearShape {
  int64_t rows, n, k;
};

LinearShape check_linear(const nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>& x, const Weights& weights, const Floats1& scale,
                         const std::optional<Floats1>& bias, const std::optional<Floats2>& residual) {
  const LinearShape s{static_cast<int64_t>(x.shape(0)), weights->n(), weights->k()};
  const auto check = [](const char* role, const std::vector<int64_t>& expected, const std::vector<int64_t>& found) {
    expect(found == expected, "Expected " + std::string(role) + " of shape " + shape_text(expected) + ", found " + shape_text(found) + ".");
  };
  expect(x.shape(1) == static_cast<size_t>(s.k), "Expected x of shape [rows, " + std::to_string(s.k) + "], found [" +
                                                     std::to_string(s.rows) + ", " + std::to_string(x.shape(1)) + "].");
  const bool right = weights->type() == Type::i8     ? x.dtype() == nb::dtype<uint8_t>()
                     : weights->type() == Type::bf16 ? x.dtype() == nb::dtype<uint16_t>()
                                                     : x.dtype() == nb::dtype<float>();
  expect(right, "Expected x of uint8 for weights of i8, of uint16 for bf16, of float32 for f32; these weights are " +
                    std::string(type_name(weights->type())) + ".");
  check("scale", {s.n}, shape_of(scale));
  if (bias) check("bias", {s.n}, shape_of(*bias));
  if (residual) check("residual", {s.rows, s.n}, shape_of(*residual));
  return s;
}

// x of u8, BF16 as uint16, or f32, by the weights.
using Activations = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

nb::object linear(const Activations& x, const Weights& weights, const Floats1& scale, const std::optional<Floats1>& bias,
                  int x_zero_point, const std::string& activation, const std::optional<Floats2>& residual,
                  std::optional<float> y_scale, int y_zero_point, int threads) {
  const LinearShape s = check_linear(x, weights, scale, bias, residual);
  expect(x_zero_point >= 0 && x_zero_point <= 255 && y_zero_point >= 0 && y_zero_point <= 255,
         "Expected zero points from 0 to 255, found " + std::to_string(x_zero_point) + " and " + std::to_string(y_zero_point) + ".");
  expect(!y_scale || *y_scale > 0, "Expected a positive y_scale.");
  LinearEpilogue e;
  e.scale.assign(scale.data(), scale.data() + s.n);
  if (bias) e.bias.assign(bias->data(), bias->data() + s.n);
  e.x_zero_point = x_zero_point;
  e.activation = activation_named(activation);
  e.quantized = y_scale.has_value();
  if (y_scale) e.inverse_scale.assign(static_cast<size_t>(s.n), 1.0f / *y_scale);
  e.y_zero_point = y_zero_point;
  AlignedBuffer y(s.rows * s.n * (e.quantized ? 1 : 4));
  {
    const nb::gil_scoped_release no_gil;
    run_linear(weights, e, s.rows, x.data(), residual ? residual->data() : nullptr, y.data(), threads);
  }
  return to_numpy(std::move(y), e.quantized ? DType::u8 : DType::f32, {s.rows, s.n});
}

nb::ndarray<nb::numpy, double, nb::ndim<2>> time_layers(const std::vector<Weights>& weights, int64_t rows,
                                                        const std::string& activation, bool quantized, int threads, int repeats) {
  std::vector<std::vector<double>> seconds;
  {
    const nb::gil_scoped_release no_gil;
    seconds = time_linear(weights, {rows, activation_named(activation), quantized, threads, repeats});
  }
  auto* flat = new std::vector<double>;
  const nb::capsule owner(flat, [](void* p) noexcept { delete static_cast<std::vector<double>*>(p); });
  for (const auto& row : seconds) flat->insert(flat->end(), row.begin(), row.end());
  return {flat->data(), {seconds.size(), static_cast<size_t>(repeats)}, owner};
}

}  // namespace

void bind_linear(nb::module_& m) {
  nb::class_<PackedWeights>(m, "PackedWeights", "Weights in the form that a kernel reads, for one instruction set.")
      .def_static("pack", &pack, nb::arg("weight"), nb::arg("form"), nb::arg("isa"), nb::arg("groups") = 1,
                  nb::arg("merged") = false,
                  "Packs `weight` [N, K], or of a convolution [N, KH, KW, C / groups], of int8 in [-127, 127], of BF16 as uint16,\n"
                  "or of float32. `merged`: the taps of a row are one run of activations. Zeros are left out of all forms but\n"
                  "\"dense\". Raises ValueError where the form does not hold these weights on the instruction set.")
      .def_prop_ro("nbytes", &PackedWeights::bytes, "Bytes that the kernel streams.")
      .def_prop_ro("form", [](const PackedWeights& w) { return form_info(w.form()).name; }, "One of forms(isa).")
      .def_prop_ro("type", [](const PackedWeights& w) { return type_name(w.type()); }, "\"i8\", \"bf16\" or \"f32\".")
      .def_prop_ro("steps", &PackedWeights::steps, "Steps of all groups: what the kernel's time follows.")
      .def_prop_ro("ordered", [](const PackedWeights& w) { return w.span() > 1; }, "Whether output channels were put in another order.")
      .def_prop_ro("n", &PackedWeights::n, "Output channels.")
      .def_prop_ro("k", &PackedWeights::k, "Input channels.")
      .def_prop_ro("isa", [](const PackedWeights& w) { return w.table().isa; }, "The instruction set.");

  m.def("linear", &linear, nb::arg("x").noconvert(), nb::arg("weights"), nb::arg("scale").noconvert(), nb::arg("bias").noconvert() = nb::none(),
        nb::arg("x_zero_point") = 0, nb::arg("activation") = "none", nb::arg("residual").noconvert() = nb::none(),
        nb::arg("y_scale") = nb::none(), nb::arg("y_zero_point") = 0, nb::arg("threads") = 1,
        "One INT8 product with its epilogue (docs/arithmetic.md, \"Linear, INT8\"): u8 `x` [R, K] to [R, N] of f32, or of u8\n"
        "where `y_scale` is given. `scale` f32 [N] is x_scale * weight_scale. Raises ValueError for shapes that do not fit.");
  m.def("time_linear", &time_layers, nb::arg("weights"), nb::arg("rows"), nb::arg("activation") = "none",
        nb::arg("quantized") = true, nb::arg("threads") = 1, nb::arg("repeats") = 10,
        "Seconds f64 [len(weights), repeats] of one product of `rows` random rows with each of the weights in turn, the\n"
        "weights coming from the third level of cache, the activations from the second. Raises ValueError.");
}

}  // namespace openwork::bind
