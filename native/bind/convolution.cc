// Single convolutions for tests and timing.
#include <nanobind/stl/array.h>

#include "bind/arrays.h"
#include "runtime/timing/convolution.h"

namespace openwork::bind {

namespace {

using Weights = std::shared_ptr<const PackedWeights>;
// u8, BF16 as uint16, or f32, by the weights.
using Images = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Floats4 = Array<float, 4>;
using Pair = std::array<int64_t, 2>;
using Pads = std::array<int64_t, 4>;

void expect(bool holds, const std::string& sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

void expect_shape(const char* role, const std::vector<int64_t>& expected, const std::vector<int64_t>& found) {
  expect(found == expected, "Expected " + std::string(role) + " of shape " + shape_text(expected) + ", found " + shape_text(found) + ".");
}

void check_zero_point(int zero_point, const char* role) {
  expect(zero_point >= 0 && zero_point <= 255,
         "Expected " + std::string(role) + " from 0 to 255, found " + std::to_string(zero_point) + ".");
}

bool fits(const Images& x, Type type) {
  if (type == Type::i8) return x.dtype() == nb::dtype<uint8_t>();
  return type == Type::bf16 ? x.dtype() == nb::dtype<uint16_t>() : x.dtype() == nb::dtype<float>();
}

// Everything but the weights and the input.
struct Call {
  const Floats1& scale;
  const std::optional<Floats1>& bias;
  int x_zero_point;
  ConvAttributes attributes;
  const std::string& activation;
  const std::optional<Floats4>& residual;
  std::optional<float> y_scale;
  int y_zero_point;
};

LinearEpilogue make_epilogue(const Call& call, int64_t n) {
  expect_shape("scale", {n}, shape_of(call.scale));
  if (call.bias) expect_shape("bias", {n}, shape_of(*call.bias));
  check_zero_point(call.x_zero_point, "x_zero_point");
  check_zero_point(call.y_zero_point, "y_zero_point");
  expect(!call.y_scale || *call.y_scale > 0, "Expected a positive y_scale.");
  LinearEpilogue e;
  e.scale.assign(call.scale.data(), call.scale.data() + n);
  if (call.bias) e.bias.assign(call.bias->data(), call.bias->data() + n);
  e.x_zero_point = call.x_zero_point;
  e.activation = activation_named(call.activation);
  e.output = call.y_scale ? Stored::u8 : Stored::f32;
  if (call.residual) e.residual = Stored::f32;
  if (call.y_scale) e.inverse_scale.assign(static_cast<size_t>(n), 1.0f / *call.y_scale);
  e.y_zero_point = call.y_zero_point;
  return e;
}

nb::object convolve(const Images& x, const Weights& weights, const Call& call, int threads) {
  expect(fits(x, weights->type()), "Expected x of uint8 for weights of i8, of uint16 for bf16, of float32 for f32; these weights are " +
                                       std::string(type_name(weights->type())) + ".");
  const ConvLayer layer(weights, make_epilogue(call, weights->n()), call.attributes);
  const auto shape = shape_of(x);
  const ConvGeometry g = make_geometry(layer.shape(), shape[0], shape[1], shape[2]);
  expect_shape("x", {g.batch, g.in_height, g.in_width, g.shape.channels}, shape);
  const std::vector<int64_t> out{g.batch, g.out_height, g.out_width, g.shape.n};
  if (call.residual) expect_shape("residual", out, shape_of(*call.residual));
  AlignedBuffer y(g.rows() * g.shape.n * (call.y_scale ? 1 : 4));
  {
    const nb::gil_scoped_release no_gil;
    run_convolution(layer, {g.batch, g.in_height, g.in_width}, {x.data(), call.residual ? call.residual->data() : nullptr, y.data()},
                    threads);
  }
  return to_numpy(std::move(y), call.y_scale ? DType::u8 : DType::f32, out);
}

nb::object conv(const Images& x, const Weights& weights, const Floats1& scale, const std::optional<Floats1>& bias, int x_zero_point,
                const Pair& strides, const Pair& dilations, const Pads& pads, const std::string& activation,
                const std::optional<Floats4>& residual, std::optional<float> y_scale, int y_zero_point, int threads) {
  return convolve(x, weights, {scale, bias, x_zero_point, {strides, dilations, pads}, activation, residual, y_scale, y_zero_point},
                  threads);
}

nb::ndarray<nb::numpy, double, nb::ndim<2>> time_conv(const std::vector<Weights>& weights, const std::array<int64_t, 3>& size,
                                                      const Pair& strides, const Pair& dilations, const Pads& pads,
                                                      const std::string& activation, bool quantized, int threads, int repeats) {
  std::vector<std::vector<double>> seconds;
  {
    const nb::gil_scoped_release no_gil;
    seconds = time_convolution(weights, {{size[0], size[1], size[2]}, {strides, dilations, pads}, activation_named(activation),
                                         quantized, threads, repeats});
  }
  auto* flat = new std::vector<double>;
  const nb::capsule owner(flat, [](void* p) noexcept { delete static_cast<std::vector<double>*>(p); });
  for (const auto& row : seconds) flat->insert(flat->end(), row.begin(), row.end());
  return {flat->data(), {seconds.size(), static_cast<size_t>(repeats)}, owner};
}

std::string conv_run(const std::array<int64_t, 4>& shape, int64_t groups, const Pair& dilations, const std::string& form,
                     const std::string& type) {
  ConvShape s = conv_shape({shape[0], shape[3], shape[1], shape[2], groups}, {{1, 1}, dilations, {}});
  check_shape(s);
  return run_name(choose_run(s, type_named(type), form_named(form)));
}

}  // namespace

void bind_convolution(nb::module_& m) {
  const Pair ones{1, 1};
  const Pads none{};
  m.def("conv", &conv, nb::arg("x").noconvert(), nb::arg("weights"), nb::arg("scale").noconvert(), nb::arg("bias").noconvert() = nb::none(),
        nb::arg("x_zero_point") = 0, nb::arg("strides") = ones, nb::arg("dilations") = ones, nb::arg("pads") = none,
        nb::arg("activation") = "none", nb::arg("residual").noconvert() = nb::none(), nb::arg("y_scale") = nb::none(),
        nb::arg("y_zero_point") = 0, nb::arg("threads") = 1,
        "One convolution with its epilogue: `x` [B, H, W, C] to [B, OH, OW, N] of f32, or of u8 where `y_scale` is given. Strides\n"
        "and dilations are (height, width), `pads` (top, left, bottom, right), where x is `x_zero_point`. `scale` f32 [N] is\n"
        "x_scale * weight_scale. Raises ValueError for shapes that do not fit.");
  m.def("time_conv", &time_conv, nb::arg("weights"), nb::arg("size"), nb::arg("strides") = ones, nb::arg("dilations") = ones,
        nb::arg("pads") = none, nb::arg("activation") = "none", nb::arg("quantized") = true, nb::arg("threads") = 1,
        nb::arg("repeats") = 10,
        "Seconds f64 [len(weights), repeats] of one convolution of random images, `size` (batch, height, width), with each of the\n"
        "weights in turn, the weights coming from the third level of cache, the activations from the second. Raises ValueError.");
  m.def("conv_run", &conv_run, nb::arg("shape"), nb::arg("groups"), nb::arg("dilations"), nb::arg("form"), nb::arg("type") = "i8",
        "What one run of activations best holds for a weight of shape (N, KH, KW, C / groups) in this form: \"tap\", \"row\" (of\n"
        "taps) or \"patch\" (all of them, copied). PackedWeights.pack takes it.");
}

}  // namespace openwork::bind
