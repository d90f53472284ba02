// Single convolutions for tests and timing.
#include <nanobind/stl/array.h>

#include "bind/arrays.h"
#include "bind/epilogue.h"
#include "runtime/timing/convolution.h"

namespace openwork::bind {

namespace {

using Weights = std::shared_ptr<const PackedWeights>;
// u8, BF16 as uint16, or f32, by the weights.
using Images = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Pair = std::array<int64_t, 2>;

ConvAttributes read_attributes(const GivenReader& given) {
  const ConvAttributes usual;
  return {given.list<2>("strides", usual.strides), given.list<2>("dilations", usual.dilations),
          given.list<4>("pads", usual.pads)};
}

nb::object conv(const Images& x, const Weights& weights, const Floats1& scale, int threads, const nb::kwargs& named) {
  const Given given = given_of(named, "conv(): ");
  const GivenReader reader("conv(): ", given);
  expect_activations(dtype_of(x.dtype(), "Expected x"), weights->type());
  const ConvAttributes attributes = read_attributes(reader);
  const auto shape = shape_of(x);
  const ConvGeometry g = make_geometry(conv_shape(weights->shape(), attributes), shape[0], shape[1], shape[2]);
  const std::vector<int64_t> wanted{shape[0], shape[1], shape[2], g.shape.channels};
  reader.expect(shape == wanted, "expected x of shape " + shape_text(wanted) + ", found " + shape_text(shape) + ".");
  const std::vector<int64_t> out{g.batch, g.out_height, g.out_width, g.shape.n};
  const LinearEpilogue e = read_epilogue(reader, scale, out);
  const void* residual = e.residual ? given.tensors.at("residual").data : nullptr;
  const ConvLayer layer(weights, e, attributes);
  AlignedBuffer y(g.rows() * g.shape.n * stored_bytes(e.output));
  {
    const nb::gil_scoped_release no_gil;
    run_convolution(layer, {g.batch, g.in_height, g.in_width}, {x.data(), residual, y.data()}, threads);
  }
  return to_numpy(std::move(y), e.output, out);
}

nb::ndarray<nb::numpy, double, nb::ndim<2>> time_conv(const std::vector<Weights>& weights, const std::array<int64_t, 3>& size,
                                                      bool quantized, int threads, int repeats, bool floats, const nb::kwargs& named) {
  const Given given = given_of(named, "time_conv(): ");
  const GivenReader reader("time_conv(): ", given);
  const ConvTiming timing{{size[0], size[1], size[2]}, read_attributes(reader),
                          reader.activation(reader.text("activation", "none")), quantized, threads, repeats, floats};
  reader.expect_all_read();
  std::vector<std::vector<double>> seconds;
  {
    const nb::gil_scoped_release no_gil;
    seconds = time_convolution(weights, timing);
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
  m.def("conv", &conv, nb::arg("x").noconvert(), nb::arg("weights"), nb::arg("scale").noconvert(), nb::arg("threads") = 1,
        nb::arg("epilogue"),
        "One convolution with its epilogue: `x` [B, H, W, C] to [B, OH, OW, N] of f32, or of u8 where `y_scale` is given. By name:\n"
        "`strides` and `dilations` (height, width), `pads` (top, left, bottom, right), where x is `x_zero_point`, and all that\n"
        "linear() takes. `scale` f32 [N] is x_scale * weight_scale. Raises ValueError for shapes that do not fit.");
  m.def("time_conv", &time_conv, nb::arg("weights"), nb::arg("size"), nb::arg("quantized") = true, nb::arg("threads") = 1,
        nb::arg("repeats") = 10, nb::arg("floats") = false, nb::arg("attributes"),
        "Seconds f64 [len(weights), repeats] of one convolution of random images, `size` (batch, height, width), with each of the\n"
        "weights in turn, the weights coming from the third level of cache, the activations from the second. By name: `strides`,\n"
        "`dilations`, `pads` and `activation`. `floats` as time_linear() has it. Raises ValueError.");
  m.def("conv_run", &conv_run, nb::arg("shape"), nb::arg("groups"), nb::arg("dilations"), nb::arg("form"), nb::arg("type") = "i8",
        "What one run of activations best holds for a weight of shape (N, KH, KW, C / groups) in this form: \"tap\", \"row\" (of\n"
        "taps) or \"patch\" (all of them, copied). PackedWeights.pack takes it.");
}

}  // namespace openwork::bind
