// The module openwork._native.
#include "bind/arrays.h"
#include "kernels/table.h"
#include "runtime/timing/cpu.h"

namespace openwork::bind {

namespace {

std::vector<std::string> isas(bool emulated) {
  std::vector<std::string> names;
  for (const auto* table : available_tables())
    if (emulated || !table->emulated) names.push_back(table->isa);
  return names;
}

std::vector<std::tuple<std::string, bool, std::string>> sets() {
  std::vector<std::tuple<std::string, bool, std::string>> rows;
  for (const InstructionSet& set : instruction_sets()) rows.emplace_back(set.name, set.emulated, set.lacks);
  return rows;
}

std::vector<FormInfo> forms(const std::string& isa, const std::string& type) {
  const KernelTable& table = choose_table(isa);
  const auto* kernels = table.gemm[static_cast<int>(type_named(type))];
  std::vector<FormInfo> found;
  for (int i = 0; i < kForms; ++i)
    if (kernels[i]) found.push_back(form_info(static_cast<Form>(i)));
  return found;
}

std::optional<FormInfo> form(const std::string& name) {
  const auto found = find_form(name);
  return found ? std::optional(form_info(*found)) : std::nullopt;
}

void bind_form(nb::module_& m) {
  nb::class_<FormInfo>(m, "Form", "How packed weights are laid out for a kernel: a row of native/kernels/table.inc.")
      .def_ro("name", &FormInfo::name, "Its name.")
      .def_prop_ro("body", [](const FormInfo& f) { return body_name(f.body); }, "How it is multiplied, a row of bodies.inc.")
      .def_ro("reach", &FormInfo::reach, "Bytes of activations that one window holds.")
      .def_ro("share", &FormInfo::share, "Neighbouring output channels that have one mask; 0 where there are no masks.")
      .def_ro("bits", &FormInfo::bits, "Bits of a stored index; 0 where there are none.")
      .def_prop_ro("sparse", &FormInfo::sparse, "Whether weights that are zero are left out.")
      .def_prop_ro("few_rows", &FormInfo::few_rows,
                   "Whether its indices are compressed: worth their expansion only where reading weights is the limit.")
      .def_prop_ro("rows_at_once", &FormInfo::rows_at_once,
                   "Rows that a product makes together, whether there are as many or not.")
      .def("__repr__", [](const FormInfo& f) { return "Form(" + std::string(f.name) + ")"; });
}

}  // namespace

}  // namespace openwork::bind

NB_MODULE(_native, m) {
  using namespace openwork;
  namespace nb = nanobind;
  m.doc() = "Kernels and runtime of openwork (docs/arithmetic.md, docs/program.md).";
  m.def("isas", &bind::isas, nb::arg("emulated") = false,
        "The instruction sets of this build that this CPU runs, best first; with `emulated` those too that run where they are asked\n"
        "for by name.");
  m.def("instruction_sets", &bind::sets,
        "All instruction sets of this build, best first: the name, whether it is emulated, and what this machine lacks for it, to\n"
        "follow \"this machine has no\"; \"\" where it runs.");
  m.def("active_isa", [] { return std::string(choose_table().isa); },
        "The instruction set of the environment variable OPENWORK_ISA, or the best. Raises ValueError for one not in isas().");
  bind::bind_form(m);
  m.def("form", &bind::form, nb::arg("name"),
        "The packed form of this name, on whatever instruction set; None where there is none.");
  m.def("forms", &bind::forms, nb::arg("isa"), nb::arg("type") = "i8",
        "The packed forms of weights of \"i8\", \"bf16\" or \"f32\" that the instruction set has kernels for.");
  m.def("kernel_version", &kernel_version, "A digest of the kernels' sources.");
  m.def("cpu_name", &cpu_name, "The processor's own name.");
  bind::bind_linear(m);
  bind::bind_peak(m);
  bind::bind_convolution(m);
  bind::bind_program(m);
}
