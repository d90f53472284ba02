#include "kernels/table.h"

#include <cstdlib>
#include <stdexcept>

namespace openwork {

extern const KernelTable kScalarTable;
#ifdef __x86_64__
extern const KernelTable kAvx512VnniTable;
extern const KernelTable kAvx2Table;
#endif

namespace {

constexpr FormInfo kForms[] = {
#define OPENWORK_GEMM(form, window, shuffled) {#form, window, shuffled},
#include "kernels/table.inc"
#undef OPENWORK_GEMM
};

#ifdef __x86_64__
bool has_avx512vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

std::vector<const KernelTable*> find_tables() {
  std::vector<const KernelTable*> tables;
#ifdef __x86_64__
  if (has_avx512vnni()) tables.push_back(&kAvx512VnniTable);
  if (has_avx2()) tables.push_back(&kAvx2Table);
#endif
  tables.push_back(&kScalarTable);
  return tables;
}

std::string names(const std::vector<const KernelTable*>& tables) {
  std::string text;
  for (const auto* t : tables) text += (text.empty() ? "" : ", ") + std::string(t->isa);
  return text;
}

}  // namespace

const FormInfo& form_info(Form form) { return kForms[static_cast<int>(form)]; }

Form form_named(const std::string& name) {
  for (int i = 0; i < static_cast<int>(Form::count); ++i)
    if (name == kForms[i].name) return static_cast<Form>(i);
  std::string known;
  for (const auto& form : kForms) known += (known.empty() ? "" : ", ") + std::string(form.name);
  throw std::invalid_argument("Expected one of the packed forms " + known + ", found \"" + name + "\".");
}

const std::vector<const KernelTable*>& available_tables() {
  static const std::vector<const KernelTable*> tables = find_tables();
  return tables;
}

const KernelTable& choose_table(const std::string& isa) {
  const char* forced = std::getenv("OPENWORK_ISA");
  const std::string name = !isa.empty() ? isa : forced ? forced : "";
  if (name.empty()) return *available_tables().front();
  for (const auto* t : available_tables())
    if (name == t->isa) return *t;
  throw std::invalid_argument("The instruction set \"" + name + "\"" +
                              (isa.empty() ? " of the environment variable OPENWORK_ISA" : "") +
                              " is unknown or not supported by this CPU; use one of " + names(available_tables()) + ".");
}

}  // namespace openwork
