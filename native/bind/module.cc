// The module openwork._native.
#include "bind/arrays.h"
#include "runtime/cpu.h"

namespace openwork::bind {

namespace {

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const auto* table : available_tables()) names.push_back(table->isa);
  return names;
}

std::vector<std::string> forms(const std::string& isa, const std::string& type) {
  const KernelTable& table = choose_table(isa);
  const auto* kernels = table.gemm[static_cast<int>(type_named(type))];
  std::vector<std::string> names;
  for (int i = 0; i < static_cast<int>(Form::count); ++i)
    if (kernels[i]) names.push_back(form_info(static_cast<Form>(i)).name);
  return names;
}

}  // namespace

}  // namespace openwork::bind

NB_MODULE(_native, m) {
  using namespace openwork;
  namespace nb = nanobind;
  m.doc() = "Kernels and runtime of openwork (docs/arithmetic.md, docs/program.md).";
  m.def("isas", &bind::isas, "The instruction sets of this build that this CPU runs, best first.");
  m.def("active_isa", [] { return std::string(choose_table().isa); },
        "The instruction set of the environment variable OPENWORK_ISA, or the best. Raises ValueError for one not in isas().");
  m.def("forms", &bind::forms, nb::arg("isa"), nb::arg("type") = "i8",
        "The packed forms of weights of \"i8\", \"bf16\" or \"f32\" that the instruction set has kernels for.");
  m.def("kernel_version", &kernel_version, "A digest of the kernels' sources.");
  m.def("cpu_name", &cpu_name, "The processor's own name.");
  bind::bind_linear(m);
  bind::bind_peak(m);
  bind::bind_convolution(m);
  bind::bind_program(m);
}
