// Packed weights, and single products for tests and timing.
#include "bind/arrays.h"
#include "runtime/time_linear.h"

namespace openwork::bind {

namespace {

using Weights = std::shared_ptr<const PackedWeights>;

void expect(bool holds, const std::string& sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

Weights pack_dense(const Array<int8_t, 2>& weight, const std::string& isa) {
  return PackedWeights::dense(weight.data(), weight.shape(0), weight.shape(1), choose_table(isa));
}

Weights pack_sparse(const Array<int8_t, 2>& values, const Array<uint8_t, 2>& indices, int kept, int group, int64_t k,
                    const std::string& form, const std::string& isa) {
  expect(group >= 1 && group <= 256 && kept >= 1 && kept <= group && k >= 1,
         "Expected 1 <= kept <= group <= 256 and k of at least 1, found kept " + std::to_string(kept) + ", group " +
             std::to_string(group) + ", k " + std::to_string(k) + ".");
  const int64_t n = static_cast<int64_t>(values.shape(0)), total = (k + group - 1) / group * kept;
  const std::vector<int64_t> value_shape{n, total}, index_shape{n, index_bytes(k, kept, group)};
  expect(shape_of(values) == value_shape,
         "Expected values of shape " + shape_text(value_shape) + ", found " + shape_text(shape_of(values)) + ".");
  expect(shape_of(indices) == index_shape,
         "Expected indices of shape " + shape_text(index_shape) + ", found " + shape_text(shape_of(indices)) + ".");
  return PackedWeights::sparse({values.data(), indices.data(), n, k, kept, group}, form_named(form), choose_table(isa));
}

struct LinearShape {
  int64_t rows, n, k;
};

LinearShape check_linear(const Array<uint8_t, 2>& x, const Weights& weights, const Floats1& scale,
                         const std::optional<Floats1>& bias, const std::optional<Floats2>& residual) {
  const LinearShape s{static_cast<int64_t>(x.shape(0)), weights->n(), weights->k()};
  const auto check = [](const char* role, const std::vector<int64_t>& expected, const std::vector<int64_t>& found) {
    expect(found == expected, "Expected " + std::string(role) + " of shape " + shape_text(expected) + ", found " + shape_text(found) + ".");
  };
  check("x", {s.rows, s.k}, shape_of(x));
  check("scale", {s.n}, shape_of(scale));
  if (bias) check("bias", {s.n}, shape_of(*bias));
  if (residual) check("residual", {s.rows, s.n}, shape_of(*residual));
  return s;
}

nb::object linear(const Array<uint8_t, 2>& x, const Weights& weights, const Floats1& scale, const std::optional<Floats1>& bias,
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
  nb::class_<PackedWeights>(m, "PackedWeights", "INT8 weights in the form that a kernel reads, for one instruction set.")
      .def_static("dense", &pack_dense, nb::arg("weight").noconvert(), nb::arg("isa"),
                  "Packs s8 `weight` [N, K], values in [-127, 127]. Raises ValueError for anything else.")
      .def_static("sparse", &pack_sparse, nb::arg("values").noconvert(), nb::arg("indices").noconvert(), nb::arg("kept"), nb::arg("group"), nb::arg("k"),
                  nb::arg("form"), nb::arg("isa"),
                  "Packs the canonical compressed form of docs/program.md: s8 `values` [N, ceil(k / group) * kept] and the\n"
                  "bit fields `indices` u8 [N, bytes]. Raises ValueError where `form` does not take the pattern.")
      .def_prop_ro("nbytes", &PackedWeights::bytes, "Bytes that the kernel streams.")
      .def_prop_ro("form", [](const PackedWeights& w) { return form_info(w.form()).name; }, "One of forms(isa).")
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
