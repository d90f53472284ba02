// Programs and the contexts that run them.
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/variant.h>

#include "bind/arrays.h"
#include "runtime/context.h"

namespace openwork::bind {

namespace {

using Weights = std::shared_ptr<const PackedWeights>;
using Handles = std::variant<int, std::vector<int>>;
using Slots = std::map<std::string, Handles>;

std::map<std::string, std::vector<int>> slots_of(const Slots& slots) {
  std::map<std::string, std::vector<int>> found;
  for (const auto& [slot, handles] : slots) {
    const int* one = std::get_if<int>(&handles);
    found.emplace(slot, one ? std::vector<int>{*one} : std::get<std::vector<int>>(handles));
  }
  return found;
}

void add_step(Program& program, const std::string& op, const std::string& name, const Slots& inputs, const Slots& outputs,
              const nb::dict& tensors, const nb::dict& attributes, const std::vector<std::pair<Weights, int64_t>>& weights) {
  StepSpec spec{op, name, slots_of(inputs), slots_of(outputs)};
  const std::string place = "Step \"" + name + "\" (" + op + "): ";
  add_tensors(tensors, place, spec.given);
  add_attributes(attributes, place, spec.given);
  for (const auto& [packed, max_rows] : weights) spec.weights.push_back({packed, max_rows});
  program.step(spec);
}

std::vector<nb::object> run(Context& context, const std::vector<AnyArray>& arrays) {
  std::vector<InputTensor> inputs;
  for (size_t i = 0; i < arrays.size(); ++i)
    inputs.push_back({dtype_of(arrays[i].dtype(), "Expected input " + std::to_string(i)), shape_of(arrays[i]),
                      arrays[i].data()});
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

}  // namespace

void bind_program(nb::module_& m) {
  m.def("steps", &step_names, "The operators that a program has steps for, by the names of docs/program.md.");
  nb::class_<Program> program(m, "Program",
                              "An ordered list of steps over values (docs/program.md). Every method raises ValueError with the\n"
                              "step, what it expected and what it found. Tensors are borrowed, not copied.");
  program.def("__init__", [](Program* self, const std::string& isa) { new (self) Program(choose_table(isa)); }, nb::arg("isa"),
              "A program for the instruction set `isa`, one of isas().");
  program.def("value", [](Program& p, const std::string& dtype, const std::vector<int64_t>& dims) {
    return p.value(dtype_named(dtype), dims);
  }, nb::arg("dtype"), nb::arg("dims"), 
     "Declares a value of \"u8\", \"bf16\" (of arrays: uint16), \"f32\" or \"i64\"; the dimension -1 - s is the free dimension\n"
     "s.");
  program.def("step", &add_step, nb::arg("op"), nb::arg("name"), nb::arg("inputs"), nb::arg("outputs"),
              nb::arg("tensors") = nb::dict(), nb::arg("attributes") = nb::dict(), nb::arg("weights") = nb::list(),
              "Adds a step, one of steps(), with everything under the name of its slot or attribute in docs/program.md. `inputs`\n"
              "and `outputs` hold handles of value(), of a variadic slot a list of them, of an absent one nothing. `tensors`\n"
              "are contiguous arrays of uint8, uint16 (BF16), float32 or int64, `attributes` numbers, texts and lists of\n"
              "integers; None is absent. `weights` are pairs of PackedWeights and the largest number of rows that they run,\n"
              "the last for any: -1.");
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
