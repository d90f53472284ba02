// Programs and the contexts that run them.
#include <nanobind/stl/array.h>

#include "bind/arrays.h"
#include "runtime/context.h"

namespace openwork::bind {

namespace {

using Weights = std::shared_ptr<const PackedWeights>;
using MaybeFloat = std::optional<float>;

void add_embedding_sum(Program& p, const std::string& name, int ids, int type_ids, int out, const Floats2& word,
                       const Floats2& position, const std::optional<Floats2>& type) {
  p.embedding_sum(name, {ids, type_ids, out, tensor(word), tensor(position), tensor(type)});
}

void add_layer_norm(Program& p, const std::string& name, int x, int y, int yq, const Floats1& gamma, const Floats1& beta,
                    float epsilon, float y_scale, int y_zero_point, const std::optional<Floats1>& y_multiplier) {
  p.layer_norm(name, {x, y, yq, tensor(gamma), tensor(beta), epsilon, {{y_scale, y_zero_point}, tensor(y_multiplier)}});
}

void add_linear(Program& p, const std::string& name, int x, int residual, int y, const std::vector<Weights>& weights,
                const std::vector<int64_t>& max_rows, const std::optional<Floats1>& scale, const std::optional<Floats1>& bias,
                int x_zero_point, const std::string& activation, float y_scale, int y_zero_point, const std::optional<Floats1>& y_multiplier,
                const MaybeFloat& alpha, const MaybeFloat& beta, bool activation_last, float residual_scale, int residual_zero_point) {
  p.linear(name, {x, residual, y, weights, max_rows, tensor(scale), tensor(bias), x_zero_point,
                  activation_named(activation, alpha, beta), {{y_scale, y_zero_point}, tensor(y_multiplier)}, activation_last,
                  {residual_scale, residual_zero_point}});
}

void add_conv(Program& p, const std::string& name, int x, int residual, int y, const std::vector<Weights>& weights,
              const std::vector<int64_t>& max_rows, const Floats1& scale, const std::optional<Floats1>& bias, int x_zero_point,
              const std::array<int64_t, 2>& strides, const std::array<int64_t, 2>& dilations, const std::array<int64_t, 4>& pads,
              const std::string& activation, float y_scale, int y_zero_point, const std::optional<Floats1>& y_multiplier,
              const MaybeFloat& alpha, const MaybeFloat& beta, bool activation_last, float residual_scale, int residual_zero_point) {
  p.conv(name, {{x, residual, y, weights, max_rows, tensor(scale), tensor(bias), x_zero_point,
                 activation_named(activation, alpha, beta), {{y_scale, y_zero_point}, tensor(y_multiplier)}, activation_last,
                 {residual_scale, residual_zero_point}},
                {strides, dilations, pads}});
}

std::optional<OutputQuantization> rounding(const MaybeFloat& scale, int zero_point) {
  return scale ? std::optional<OutputQuantization>({*scale, zero_point}) : std::nullopt;
}

void add_attention(Program& p, const std::string& name, int q, int k, int v, int mask, int y, int64_t heads, float scale,
                   float y_scale, int y_zero_point, const MaybeFloat& score_scale, int score_zero_point,
                   const MaybeFloat& probability_scale, int probability_zero_point) {
  p.attention(name, {q, k, v, mask, y, heads, scale, {y_scale, y_zero_point}, rounding(score_scale, score_zero_point),
                     rounding(probability_scale, probability_zero_point)});
}

void add_dequantize(Program& p, const std::string& name, int x, int y, float scale, int zero_point) {
  p.dequantize(name, x, y, {scale, zero_point});
}

LookupTable lookup_table(const Bytes1& table) {
  if (table.shape(0) != 256)
    throw std::invalid_argument("Expected a table of 256 bytes, found " + std::to_string(table.shape(0)) + ".");
  LookupTable copy;
  std::copy_n(table.data(), 256, copy.begin());
  return copy;
}

void add_lookup(Program& p, const std::string& name, int x, int y, const Bytes1& table) {
  p.lookup(name, x, y, lookup_table(table));
}

void add_concat(Program& p, const std::string& name, const std::vector<int>& inputs, int y, int64_t axis,
                const std::vector<std::optional<Bytes1>>& tables) {
  ConcatSpec spec{inputs, y, axis};
  for (const auto& table : tables) spec.tables.push_back(table ? std::optional(lookup_table(*table)) : std::nullopt);
  p.concat(name, spec);
}

void add_activate(Program& p, const std::string& name, int x, int y, const std::string& activation, const MaybeFloat& alpha,
                  const MaybeFloat& beta) {
  p.activate(name, x, y, activation_named(activation, alpha, beta));
}

void add_quantize(Program& p, const std::string& name, int x, int y, float y_scale, int y_zero_point) {
  p.quantize(name, x, y, {y_scale, y_zero_point});
}

InputTensor input(const AnyArray& array, size_t index) {
  const auto dtype = [&] {
    if (array.dtype() == nb::dtype<uint8_t>()) return DType::u8;
    if (array.dtype() == nb::dtype<uint16_t>()) return DType::bf16;
    if (array.dtype() == nb::dtype<float>()) return DType::f32;
    if (array.dtype() == nb::dtype<int64_t>()) return DType::i64;
    throw std::invalid_argument("Expected input " + std::to_string(index) +
                                " of type u8, bf16 (as uint16), f32 or i64, found a type of " + std::to_string(array.itemsize()) + " bytes.");
  };
  return {dtype(), shape_of(array), array.data()};
}

std::vector<nb::object> run(Context& context, const std::vector<AnyArray>& arrays) {
  std::vector<InputTensor> inputs;
  for (size_t i = 0; i < arrays.size(); ++i) inputs.push_back(input(arrays[i], i));
  std::vector<OutputTensor> outputs;
  {
    const nb::gil_scoped_release no_gil;
    outputs = context.run(inputs);
  }
  std::vector<nb::object> results;
  for (auto& out : outputs) results.push_back(to_numpy(std::move(out.buffer), out.dtype, out.dims));
  return results;
}

std::vector<std::tuple<std::string, double, int64_t>> profile(Context& context) {
  std::vector<std::tuple<std::string, double, int64_t>> rows;
  for (const auto& step : context.profile()) rows.emplace_back(step.name, step.seconds, step.calls);
  return rows;
}

void bind_steps(nb::class_<Program>& c) {
  c.def("embedding_sum", &add_embedding_sum, nb::arg("name"), nb::arg("ids"), nb::arg("type_ids"), nb::arg("out"), nb::arg("word").noconvert(),
        nb::arg("position").noconvert(), nb::arg("type").none().noconvert(), "(word[id] + type[t]) + position[l]; `type_ids` -1 goes with `type` None.");
  c.def("layer_norm", &add_layer_norm, nb::arg("name"), nb::arg("x"), nb::arg("y"), nb::arg("yq"), nb::arg("gamma").noconvert(),
        nb::arg("beta").noconvert(), nb::arg("epsilon"), nb::arg("y_scale") = 1.0f, nb::arg("y_zero_point") = 0, nb::arg("y_multiplier") = nb::none(),
        "Layer norm to f32 `y`, u8 `yq`, or both; -1 is absent. `y_multiplier` [N] scales each channel of `yq` before it is\n"
        "quantized.");
  c.def("linear", &add_linear, nb::arg("name"), nb::arg("x"), nb::arg("residual"), nb::arg("y"), nb::arg("weights"),
        nb::arg("max_rows"), nb::arg("scale").none().noconvert(), nb::arg("bias").none().noconvert(), nb::arg("x_zero_point"),
        nb::arg("activation"), nb::arg("y_scale") = 1.0f, nb::arg("y_zero_point") = 0, nb::arg("y_multiplier") = nb::none(), nb::arg("alpha") = nb::none(),
        nb::arg("beta") = nb::none(), nb::arg("activation_last") = false, nb::arg("residual_scale") = 1.0f,
        nb::arg("residual_zero_point") = 0,
        "Product of u8 `x` and INT8 weights, of which `scale` [N] is needed, or of f32 or bf16 `x` and such weights; rows of\n"
        "f32 are rounded for weights of bf16. Residual and `y` are f32, bf16 or u8. `y_multiplier` [N] scales each channel\n"
        "before it is quantized. weights[i] serves up to max_rows[i] rows; the last entry of max_rows is -1: any number.\n"
        "`alpha` and `beta` are the activation's numbers, where they are not the usual ones; it comes before the residual or,\n"
        "`activation_last`, after it.");
  const std::array<int64_t, 2> ones{1, 1};
  c.def("conv", &add_conv, nb::arg("name"), nb::arg("x"), nb::arg("residual"), nb::arg("y"), nb::arg("weights"), nb::arg("max_rows"),
        nb::arg("scale").noconvert(), nb::arg("bias").none().noconvert(), nb::arg("x_zero_point"), nb::arg("strides") = ones,
        nb::arg("dilations") = ones, nb::arg("pads") = std::array<int64_t, 4>{}, nb::arg("activation") = "none",
        nb::arg("y_scale") = 1.0f, nb::arg("y_zero_point") = 0, nb::arg("y_multiplier") = nb::none(), nb::arg("alpha") = nb::none(),
        nb::arg("beta") = nb::none(), nb::arg("activation_last") = false, nb::arg("residual_scale") = 1.0f,
        nb::arg("residual_zero_point") = 0,
        "INT8 convolution of `x` [B, H, W, C], of which only B may be free, to `y` [B, OH, OW, N]; strides and dilations are\n"
        "(height, width), `pads` (top, left, bottom, right). weights[i] serves up to max_rows[i] output pixels. The rest as in\n"
        "linear().");
  c.def("attention", &add_attention, nb::arg("name"), nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("mask"), nb::arg("y"),
        nb::arg("heads"), nb::arg("scale"), nb::arg("y_scale") = 1.0f, nb::arg("y_zero_point") = 0,
        nb::arg("score_scale") = nb::none(), nb::arg("score_zero_point") = 0, nb::arg("probability_scale") = nb::none(),
        nb::arg("probability_zero_point") = 0,
        "Attention; with `k` and `v` -1, `q` holds all three [B, L, 3 H]; `mask` -1 keeps every key. Where their scales are\n"
        "given, q k^T (before `scale`) and the softmax's probabilities go through u8 and back.");
  c.def("mean_pool", &Program::mean_pool, nb::arg("name"), nb::arg("x"), nb::arg("mask"), nb::arg("y"), "Mean of the kept positions.");
  c.def("l2_normalize", &Program::l2_normalize, nb::arg("name"), nb::arg("x"), nb::arg("y"), nb::arg("epsilon"),
        "x / max(norm, epsilon) over the last dimension.");
  c.def("quantize", &add_quantize, nb::arg("name"), nb::arg("x"), nb::arg("y"), nb::arg("y_scale"), nb::arg("y_zero_point"),
        "f32 to u8.");
  c.def("dequantize", &add_dequantize, nb::arg("name"), nb::arg("x"), nb::arg("y"), nb::arg("scale"), nb::arg("zero_point"),
        "u8 to f32: (x - zero_point) * scale.");
  c.def("lookup", &add_lookup, nb::arg("name"), nb::arg("x"), nb::arg("y"), nb::arg("table").noconvert(),
        "u8 to u8: `table` u8 [256] holds what stands for each.");
  c.def("concat", &add_concat, nb::arg("name"), nb::arg("inputs"), nb::arg("y"), nb::arg("axis"), nb::arg("tables") = nb::list(),
        "The inputs side by side along `axis`, all of u8, bf16 or f32. `tables` has for each u8 input what stands for each of\n"
        "its values, u8 [256], or None: they stay; an empty list: all stay.");
  c.def("add", &Program::add, nb::arg("name"), nb::arg("a"), nb::arg("b"), nb::arg("y"), "a + b.");
  c.def("activate", &add_activate, nb::arg("name"), nb::arg("x"), nb::arg("y"), nb::arg("activation"), nb::arg("alpha") = nb::none(),
        nb::arg("beta") = nb::none(), "An activation by its name, with its usual numbers or these.");
}

}  // namespace

void bind_program(nb::module_& m) {
  nb::class_<Program> program(m, "Program",
                              "An ordered list of steps over values (docs/program.md). Every method raises ValueError with the\n"
                              "step, what it expected and what it found. Float tensors are borrowed, not copied.");
  program.def("__init__", [](Program* self, const std::string& isa) { new (self) Program(choose_table(isa)); }, nb::arg("isa"),
              "A program for the instruction set `isa`, one of isas().");
  program.def("value", [](Program& p, const std::string& dtype, const std::vector<int64_t>& dims) {
    return p.value(dtype_named(dtype), dims);
  }, nb::arg("dtype"), nb::arg("dims"), 
     "Declares a value of \"u8\", \"bf16\" (of arrays: uint16), \"f32\" or \"i64\"; the dimension -1 - s is the free dimension\n"
     "s.");
  bind_steps(program);
  program.def("finish", &Program::finish, nb::arg("inputs"), nb::arg("outputs"), "Names inputs and outputs, and checks the whole.");

  nb::class_<Context>(m, "Context", "A thread pool and scratch memory that run a finished program.")
      .def("__init__", [](Context* self, std::shared_ptr<Program> p, int threads, int max_plans) {
        new (self) Context(std::move(p), threads, max_plans);
      }, nb::arg("program"), nb::arg("threads"), nb::arg("max_plans") = 64,
           "`threads` counts the caller; `max_plans` sets of input shapes are remembered. Raises ValueError.")
      .def("run", &run, nb::arg("inputs"),
           "Runs the program on contiguous arrays in the order of finish(), and returns new arrays. Raises ValueError for\n"
           "a type, shape or id that the program does not take. Releases the GIL; one run at a time.")
      .def("enable_profile", &Context::enable_profile, nb::arg("enabled"), "Starts (from zero) or stops timing each step.")
      .def("profile", &profile, "(step, seconds, calls) in the order of the program.");
}

}  // namespace openwork::bind
