// Packed weights, and single products for tests and timing.
#include "bind/arrays.h"
#include "bind/epilogue.h"
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

WeightShape shape_of_weight(const AnyWeight& weight, int64_t groups, const std::string& run) {
  expect(weight.ndim() == 2 || weight.ndim() == 4,
         "Expected weights of shape [n, k], or [n, kernel height, kernel width, channels of a group], found " +
             std::to_string(weight.ndim()) + " dimensions.");
  const auto size = [&](size_t d) { return static_cast<int64_t>(weight.shape(d)); };
  const bool matrix = weight.ndim() == 2;
  const ConvRun held = run_named(run);
  const WeightShape shape = matrix ? WeightShape{size(0), size(1)}
                                   : WeightShape{size(0), size(3), size(1), size(2), groups, held == ConvRun::row, held == ConvRun::patch};
  expect(!matrix || (groups == 1 && held == ConvRun::tap), "Expected a convolution's weights of 4 dimensions where groups or runs are given.");
  return shape;
}

Weights pack(const AnyWeight& weight, const std::string& form, const std::string& isa, int64_t groups, const std::string& run) {
  const Type type = type_of(weight);
  const WeightShape shape = shape_of_weight(weight, groups, run);
  const nb::gil_scoped_release no_gil;
  return PackedWeights::pack(shape, type, weight.data(), form_named(form), choose_table(isa));
}

// x of u8, BF16 as uint16, or f32, by the weights.
using Activations = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

nb::object linear(const Activations& x, const Weights& weights, const Floats1& scale, int threads, const nb::kwargs& epilogue) {
  const Given given = given_of(epilogue, "linear(): ");
  const GivenReader reader("linear(): ", given);
  expect_activations(dtype_of(x.dtype(), "Expected x"), weights->type());
  const std::vector<int64_t> shape = shape_of(x);
  const int64_t n = weights->n();
  expect(shape[1] == weights->k(), "Expected x of shape [rows, " + std::to_string(weights->k()) + "], found " + shape_text(shape) + ".");
  const LinearEpilogue e = read_epilogue(reader, scale, {shape[0], n});
  const void* residual = e.residual ? given.tensors.at("residual").data : nullptr;
  AlignedBuffer y(shape[0] * n * stored_bytes(e.output));
  {
    const nb::gil_scoped_release no_gil;
    run_linear(weights, e, shape[0], x.data(), residual, y.data(), threads);
  }
  return to_numpy(std::move(y), e.output, {shape[0], n});
}

nb::ndarray<nb::numpy, double, nb::ndim<2>> time_layers(const std::vector<Weights>& weights, int64_t rows,
                                                        const std::string& activation, bool quantized, int threads, int repeats,
                                                        bool floats) {
  std::vector<std::vector<double>> seconds;
  {
    const nb::gil_scoped_release no_gil;
    seconds = time_linear(weights, {rows, activation_named(activation), quantized, threads, repeats, floats});
  }
  auto* flat = new std::vector<double>;
  const nb::capsule owner(flat, [](void* p) noexcept { delete static_cast<std::vector<double>*>(p); });
  for (const auto& row : seconds) flat->insert(flat->end(), row.begin(), row.end());
  return {flat->data(), {seconds.size(), static_cast<size_t>(repeats)}, owner};
}

std::string refusal_of(const AnyWeight& weight, const std::string& form, const std::string& isa, int64_t groups, const std::string& run) {
  return refusal(shape_of_weight(weight, groups, run), type_of(weight), form_named(form), choose_table(isa));
}

nb::dict expected_work(const AnyWeight& weight, const std::vector<std::string>& names, const std::string& isa, int64_t groups,
                       const std::vector<std::string>& runs) {
  std::vector<Form> forms;
  for (const auto& name : names) forms.push_back(form_named(name));
  expect(runs.empty() || runs.size() == names.size(), "Expected a run for each of the " + std::to_string(names.size()) +
                                                          " forms, found " + std::to_string(runs.size()) + ".");
  std::vector<WeightShape> shapes;
  for (size_t i = 0; i < names.size(); ++i) shapes.push_back(shape_of_weight(weight, groups, runs.empty() ? "tap" : runs[i]));
  const Type type = type_of(weight);
  std::vector<Outlook> outlooks;
  {
    const nb::gil_scoped_release no_gil;
    outlooks = outlook(shapes, type, weight.data(), forms, choose_table(isa));
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

  m.def("refusal", &refusal_of, nb::arg("weight").noconvert(), nb::arg("form"), nb::arg("isa"), nb::arg("groups") = 1,
        nb::arg("run") = "tap",
        "Why the form does not hold a weight of this shape and type, as PackedWeights.pack takes it; empty where it does.");
  m.def("expected_work", &expected_work, nb::arg("weight").noconvert(), nb::arg("forms"), nb::arg("isa"), nb::arg("groups") = 1,
        nb::arg("runs") = std::vector<std::string>{},
        "By name what each of the forms is expected to take for each row of a product with `weight` [N, K], or of a convolution's\n"
        "[N, KH, KW, C / groups], a dense product of the same sizes taking 1, or a sentence why it does not hold the weight.\n"
        "`runs`: of each form, as conv_run() says. Raises ValueError for a weight that no form holds.");
  m.def("linear", &linear, nb::arg("x").noconvert(), nb::arg("weights"), nb::arg("scale").noconvert(), nb::arg("threads") = 1,
        nb::arg("epilogue"),
        "One product with its epilogue (docs/arithmetic.md, \"Epilogue\"): `x` [R, K] of the weights' type to [R, N]. `scale` f32\n"
        "[N] is x_scale * weight_scale. By name: `x_zero_point`, `bias` f32 [N], `activation` with `alpha` and `beta`,\n"
        "`activation_last`, `residual` f32, BF16 (uint16) or u8 with `residual_scale` and `residual_zero_point`; `y_scale` and\n"
        "`y_zero_point` make u8 of what else is f32, `y_type` \"bf16\" (as uint16) or \"s8\" of either; `lookup` u8 [256] holds\n"
        "what is stored in the place of each u8. Raises ValueError for shapes, types and numbers that do not fit.");
  m.def("time_linear", &time_layers, nb::arg("weights"), nb::arg("rows"), nb::arg("activation") = "none",
        nb::arg("quantized") = true, nb::arg("threads") = 1, nb::arg("repeats") = 10, nb::arg("floats") = false,
        "Seconds f64 [len(weights), repeats] of one product of `rows` random rows with each of the weights in turn, the\n"
        "weights coming from the third level of cache, the activations from the second. `floats`: x is f32, which weights of\n"
        "BF16 round, so that they may take turns with weights of f32. Raises ValueError.");
}

}  // namespace openwork::bind
