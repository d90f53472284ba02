// Packed weights, and single products for tests and timing.
#include <algorithm>

#include "bind/arrays.h"
#include "kernels/outlook.h"
#include "runtime/convolution/shape.h"
#include "runtime/timing/linear.h"

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

Weights pack(const AnyWeight& weight, const std::string& form, const std::string& isa, int64_t groups, const std::string& run) {
  const Type type = type_of(weight);
  expect(weight.ndim() == 2 || weight.ndim() == 4,
         "Expected weights of shape [n, k], or [n, kernel height, kernel width, channels of a group], found " +
             std::to_string(weight.ndim()) + " dimensions.");
  const auto size = [&](size_t d) { return static_cast<int64_t>(weight.shape(d)); };
  const bool matrix = weight.ndim() == 2;
  const ConvRun held = run_named(run);
  const WeightShape shape = matrix ? WeightShape{size(0), size(1)}
                                   : WeightShape{size(0), size(3), size(1), size(2), groups, held == ConvRun::row, held == ConvRun::patch};
  expect(!matrix || (groups == 1 && held == ConvRun::tap), "Expected a convolution's weights of 4 dimensions where groups or runs are given.");
  const nb::gil_scoped_release no_gil;
  return PackedWeights::pack(shape, type, weight.data(), form_named(form), choose_table(isa));
}

// f32, BF16 as uint16, or u8.
using Residual = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

struct LinearShape {
  int64_t rows, n, k;
};

LinearShape check_linear(const nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>& x, const Weights& weights, const Floats1& scale,
                         const std::optional<Floats1>& bias, const std::optional<Residual>& residual) {
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
using Table = Array<uint8_t, 1>;

// Everything behind the product.
struct Ending {
  const std::string& activation;
  const std::optional<float>&alpha, &beta;
  bool activation_last;
  const std::optional<Residual>& residual;
  float residual_scale;
  int residual_zero_point;
  const std::optional<float>& y_scale;
  int y_zero_point;
  const std::string& y_type;
  const std::optional<Table>& lookup;
};

Stored residual_type(const Residual& residual) {
  if (residual.dtype() == nb::dtype<uint8_t>()) return Stored::u8;
  if (residual.dtype() == nb::dtype<uint16_t>()) return Stored::bf16;
  expect(residual.dtype() == nb::dtype<float>(), "Expected a residual of float32, uint16 (BF16) or uint8.");
  return Stored::f32;
}

// Empty: u8 where there is a scale, else f32.
Stored output_type(const std::string& name, bool scaled) {
  static constexpr const char* kNames[] = {"f32", "bf16", "u8", "s8"};
  if (name.empty()) return scaled ? Stored::u8 : Stored::f32;
  for (const Stored type : {Stored::f32, Stored::bf16, Stored::u8, Stored::s8})
    if (name == kNames[static_cast<int>(type)]) {
      expect(is_quantized(type) == scaled, "Expected a y_scale exactly where y_type is u8 or s8, found y_type \"" + name + "\".");
      return type;
    }
  throw std::invalid_argument("Expected a y_type out of f32, bf16, u8 and s8, found \"" + name + "\".");
}

void add_ending(const Ending& ending, int64_t n, LinearEpilogue& e) {
  e.activation = activation_named(ending.activation, ending.alpha, ending.beta);
  e.activation_last = ending.activation_last;
  if (ending.residual) e.residual = residual_type(*ending.residual);
  expect(ending.residual_scale > 0, "Expected a positive residual_scale.");
  expect(ending.residual_zero_point >= 0 && ending.residual_zero_point <= 255,
         "Expected a residual_zero_point from 0 to 255, found " + std::to_string(ending.residual_zero_point) + ".");
  e.residual_scale = ending.residual_scale;
  e.residual_zero_point = ending.residual_zero_point;
  expect(!ending.y_scale || *ending.y_scale > 0, "Expected a positive y_scale.");
  e.output = output_type(ending.y_type, ending.y_scale.has_value());
  if (ending.y_scale) e.inverse_scale.assign(static_cast<size_t>(n), 1.0f / *ending.y_scale);
  e.y_zero_point = ending.y_zero_point;
  if (!ending.lookup) return;
  expect(ending.lookup->shape(0) == 256, "Expected a lookup table of 256 bytes, found " + std::to_string(ending.lookup->shape(0)) + ".");
  e.lookup.emplace();
  std::copy_n(ending.lookup->data(), 256, e.lookup->begin());
}

nb::object linear(const Activations& x, const Weights& weights, const Floats1& scale, const std::optional<Floats1>& bias,
                  int x_zero_point, const std::string& activation, const std::optional<Residual>& residual,
                  std::optional<float> y_scale, int y_zero_point, int threads, std::optional<float> alpha, std::optional<float> beta,
                  bool activation_last, float residual_scale, int residual_zero_point, const std::string& y_type,
                  const std::optional<Table>& lookup) {
  const LinearShape s = check_linear(x, weights, scale, bias, residual);
  expect(x_zero_point >= 0 && x_zero_point <= 255 && y_zero_point >= 0 && y_zero_point <= 255,
         "Expected zero points from 0 to 255, found " + std::to_string(x_zero_point) + " and " + std::to_string(y_zero_point) + ".");
  LinearEpilogue e;
  e.scale.assign(scale.data(), scale.data() + s.n);
  if (bias) e.bias.assign(bias->data(), bias->data() + s.n);
  e.x_zero_point = x_zero_point;
  add_ending({activation, alpha, beta, activation_last, residual, residual_scale, residual_zero_point, y_scale, y_zero_point, y_type,
              lookup}, s.n, e);
  AlignedBuffer y(s.rows * s.n * stored_bytes(e.output));
  {
    const nb::gil_scoped_release no_gil;
    run_linear(weights, e, s.rows, x.data(), residual ? residual->data() : nullptr, y.data(), threads);
  }
  return to_numpy(std::move(y), e.output, {s.rows, s.n});
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

nb::dict expected_work(const AnyWeight& weight, const std::vector<std::string>& names, const std::string& isa) {
  expect(weight.ndim() == 2, "Expected a weight of shape [n, k], found " + std::to_string(weight.ndim()) + " dimensions.");
  std::vector<Form> forms;
  for (const auto& name : names) forms.push_back(form_named(name));
  const WeightShape shape{static_cast<int64_t>(weight.shape(0)), static_cast<int64_t>(weight.shape(1))};
  const Type type = type_of(weight);
  std::vector<Outlook> outlooks;
  {
    const nb::gil_scoped_release no_gil;
    outlooks = outlook(shape, type, weight.data(), forms, choose_table(isa));
  }
  nb::dict found;
  for (const Outlook& form : outlooks) {
    const nb::str name(form_info(form.form).name);
    if (form.reason.empty())
      found[name] = form.work;
    else
      found[name] = form.reason;
  }
  return found;
}

}  // namespace

void bind_linear(nb::module_& m) {
  nb::class_<PackedWeights>(m, "PackedWeights", "Weights in the form that a kernel reads, for one instruction set.")
      .def_static("pack", &pack, nb::arg("weight").noconvert(), nb::arg("form"), nb::arg("isa"), nb::arg("groups") = 1,
                  nb::arg("run") = "tap",
                  "Packs `weight` [N, K], or of a convolution [N, KH, KW, C / groups], of int8 in [-127, 127], of BF16 as uint16,\n"
                  "or of float32. `run`: what conv_run() says. Zeros are left out of all forms but \"dense\". Raises ValueError where the form does not hold these weights on the instruction set.")
      .def_prop_ro("nbytes", &PackedWeights::bytes, "Bytes that the kernel streams.")
      .def_prop_ro("form", [](const PackedWeights& w) { return form_info(w.form()).name; }, "One of forms(isa).")
      .def_prop_ro("type", [](const PackedWeights& w) { return type_name(w.type()); }, "\"i8\", \"bf16\" or \"f32\".")
      .def_prop_ro("steps", &PackedWeights::steps, "Steps of all groups: what the kernel's time follows.")
      .def_prop_ro("work", &PackedWeights::work,
                   "What the kernel's time is expected to follow, in dot products of a strip for each row; compare it between the\n"
                   "forms of equal weights on one instruction set.")
      .def_prop_ro("ordered", [](const PackedWeights& w) { return w.span() > 1; }, "Whether output channels were put in another order.")
      .def_prop_ro("n", &PackedWeights::n, "Output channels.")
      .def_prop_ro("k", &PackedWeights::k, "Input channels.")
      .def_prop_ro("isa", [](const PackedWeights& w) { return w.table().isa; }, "The instruction set.");

  m.def("expected_work", &expected_work, nb::arg("weight").noconvert(), nb::arg("forms"), nb::arg("isa"),
        "By name what each of the forms is expected to take for each row of a product with `weight` [N, K], the dense form\n"
        "taking 1, or a sentence why it does not hold the weight. Raises ValueError for a weight that no form holds.");
  m.def("linear", &linear, nb::arg("x").noconvert(), nb::arg("weights"), nb::arg("scale").noconvert(), nb::arg("bias").noconvert() = nb::none(),
        nb::arg("x_zero_point") = 0, nb::arg("activation") = "none", nb::arg("residual").noconvert() = nb::none(),
        nb::arg("y_scale") = nb::none(), nb::arg("y_zero_point") = 0, nb::arg("threads") = 1, nb::arg("alpha") = nb::none(),
        nb::arg("beta") = nb::none(), nb::arg("activation_last") = false, nb::arg("residual_scale") = 1.0f,
        nb::arg("residual_zero_point") = 0, nb::arg("y_type") = "", nb::arg("lookup").noconvert() = nb::none(),
        "One product with its epilogue (docs/arithmetic.md, \"Epilogue\"): `x` [R, K] of the weights' type to [R, N] of f32, of u8\n"
        "where `y_scale` is given, or of `y_type`: \"f32\", \"bf16\" (as uint16), \"u8\" or \"s8\". `scale` f32 [N] is x_scale *\n"
        "weight_scale. `residual` is f32, BF16 (uint16) or u8; `lookup` u8 [256] holds what is stored in the place of each u8.\n"
        "Raises ValueError for shapes, types and numbers that do not fit.");
  m.def("time_linear", &time_layers, nb::arg("weights"), nb::arg("rows"), nb::arg("activation") = "none",
        nb::arg("quantized") = true, nb::arg("threads") = 1, nb::arg("repeats") = 10,
        "Seconds f64 [len(weights), repeats] of one product of `rows` random rows with each of the weights in turn, the\n"
        "weights coming from the third level of cache, the activations from the second. Raises ValueError.");
}

}  // namespace openwork::bind
