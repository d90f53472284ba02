#include "kernels/table.h"

#include <cstdlib>
#include <stdexcept>

#include "kernels/cpu.h"
#include "kernels/overlay.h"

namespace openwork {

#define OPENWORK_ISA(name, Symbol, lacks)         \
  extern const ProductTable k##Symbol##Products; \
  extern const OperatorTable k##Symbol##Operators;
#define OPENWORK_UNIT(name, Symbol, Base, emulates, lacks) extern const KernelOverlay k##Symbol##Overlay;
#include "kernels/isas.inc"
#undef OPENWORK_ISA
extern const KernelOverlay kAvx512Bf16Overlay;

namespace {

// The base with the overlay's kernels in their places, under a name of its own.
KernelTable with(const KernelTable& base, const KernelOverlay& overlay, const char* isa) {
  KernelTable table = base;
  table.isa = isa;
  table.peak = overlay.peak;
  for (int type = 0; type < kTypes; ++type)
    for (int form = 0; form < kForms; ++form)
      if (const GemmKernel kernel = overlay.gemm[type][form]) table.gemm[type][form] = kernel;
  return table;
}

// A set's kernels, with what else this CPU has.
KernelTable whole(const ProductTable& products, const OperatorTable& operators) {
  const KernelTable table{products, operators};
#if defined(__x86_64__) && !defined(OPENWORK_SCALAR_ALONE)
  if (&products == &kAvx512VnniProducts && cpu::has_avx512bf16()) return with(table, kAvx512Bf16Overlay, table.isa);
#endif
  return table;
}

#define OPENWORK_ISA(name, Symbol, lacks)                                               \
  const KernelTable& table_of_##Symbol() {                                              \
    static const KernelTable table = whole(k##Symbol##Products, k##Symbol##Operators); \
    return table;                                                                       \
  }
#include "kernels/isas.inc"
#undef OPENWORK_ISA

InstructionSet row(const std::string& name, const std::string& lacks, const KernelTable& table) {
  return {name, table.emulated, lacks.empty() ? &table : nullptr, lacks};
}

std::vector<InstructionSet> find_sets() {
  std::vector<InstructionSet> sets;
#define OPENWORK_ISA(name, Symbol, lacks) sets.push_back(row(#name, lacks, table_of_##Symbol()));
#define OPENWORK_UNIT(name, Symbol, Base, emulates, lacks)                                 \
  {                                                                                        \
    static KernelTable table = with(table_of_##Base(), k##Symbol##Overlay, #name);         \
    table.emulated = emulates;                                                             \
    sets.push_back(row(#name, lacks, table));                                              \
  }
#include "kernels/isas.inc"
#undef OPENWORK_ISA
  return sets;
}

std::vector<const KernelTable*> find_tables() {
  std::vector<const KernelTable*> tables;
  for (const InstructionSet& set : instruction_sets())
    if (set.table) tables.push_back(set.table);
  return tables;
}

std::string names(const std::vector<const KernelTable*>& tables) {
  std::string text;
  for (const auto* t : tables) text += (text.empty() ? "" : ", ") + std::string(t->isa);
  return text;
}

}  // namespace

std::optional<Form> find_form(const std::string& name) {
  for (int i = 0; i < kForms; ++i)
    if (name == kFormInfos[i].name) return static_cast<Form>(i);
  return std::nullopt;
}

Form form_named(const std::string& name) {
  if (const auto form = find_form(name)) return *form;
  std::string known;
  for (const auto& form : kFormInfos) known += (known.empty() ? "" : ", ") + std::string(form.name);
  throw std::invalid_argument("Expected one of the packed forms " + known + ", found \"" + name + "\".");
}

const char* body_name(Body body) {
  static constexpr const char* kNames[] = {
#define OPENWORK_BODY(body, rows, block) #body,
#include "kernels/bodies.inc"
#undef OPENWORK_BODY
  };
  return kNames[static_cast<int>(body)];
}

const char* type_name(Type type) { return type == Type::i8 ? "i8" : type == Type::bf16 ? "bf16" : "f32"; }

Type type_named(const std::string& name) {
  for (const Type type : {Type::i8, Type::bf16, Type::f32})
    if (name == type_name(type)) return type;
  throw std::invalid_argument("Expected one of the element types i8, bf16, f32, found \"" + name + "\".");
}

const std::vector<InstructionSet>& instruction_sets() {
  static const std::vector<InstructionSet> sets = find_sets();
  return sets;
}

const std::vector<const KernelTable*>& available_tables() {
  static const std::vector<const KernelTable*> tables = find_tables();
  return tables;
}

const KernelTable& choose_table(const std::string& isa) {
  const char* forced = std::getenv("OPENWORK_ISA");
  const std::string name = !isa.empty() ? isa : forced ? forced : "";
  for (const auto* t : available_tables())
    if (name.empty() ? !t->emulated : name == t->isa) return *t;
  for (const InstructionSet& set : instruction_sets())
    if (name == set.name)
      throw std::invalid_argument("The instruction set \"" + name + "\" does not run here: this machine has no " + set.lacks +
                                  "; use one of " + names(available_tables()) + ".");
  throw std::invalid_argument("The instruction set \"" + name + "\"" +
                              (isa.empty() ? " of the environment variable OPENWORK_ISA" : "") +
                              " is unknown; use one of " + names(available_tables()) + ".");
}

}  // namespace openwork
