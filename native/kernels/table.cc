#include "kernels/table.h"

#include <cstdlib>
#include <stdexcept>

#include "kernels/bf16_kernels.h"

#ifdef __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace openwork {

extern const KernelTable kScalarTable;
#ifdef __x86_64__
extern const KernelTable kAvx512VnniTable;
extern const Bf16Kernels kAvx512Bf16Kernels;
extern const KernelTable kAvx512VnniNoVbmiTable;
extern const KernelTable kAvxVnniTable;
extern const KernelTable kAvx2Table;
#endif
#ifdef __aarch64__
extern const KernelTable kNeonTable;
#endif

namespace {

constexpr FormInfo kFormInfos[] = {
#define OPENWORK_GEMM(form, body, reach, share, bits) {#form, Body::body, reach, share, bits},
#include "kernels/table.inc"
#undef OPENWORK_GEMM
};

#ifdef __x86_64__
bool has_avx512vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
bool has_vbmi() { return __builtin_cpu_supports("avx512vbmi"); }
// avx512vnni, with the CPU's own products of BF16 where it has them.
const KernelTable& avx512vnni_table() {
  static const KernelTable with_bf16 = [] {
    KernelTable table = kAvx512VnniTable;
    for (int form = 0; form < kForms; ++form) table.gemm[static_cast<int>(Type::bf16)][form] = kAvx512Bf16Kernels.gemm[form];
    table.peak = [](const PeakArgs& a, int64_t begin, int64_t end) {
      (a.type == Type::bf16 ? kAvx512Bf16Kernels.peak : kAvx512VnniTable.peak)(a, begin, end);
    };
    return table;
  }();
  return __builtin_cpu_supports("avx512bf16") ? with_bf16 : kAvx512VnniTable;
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
#ifdef __aarch64__
bool has_dot_product() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#endif

std::vector<const KernelTable*> find_tables() {
  std::vector<const KernelTable*> tables;
#ifdef __x86_64__
  if (has_avx512vnni() && has_vbmi()) tables.push_back(&avx512vnni_table());
  if (has_avx512vnni()) tables.push_back(&kAvx512VnniNoVbmiTable);
  if (has_avx2() && __builtin_cpu_supports("avxvnni")) tables.push_back(&kAvxVnniTable);
  if (has_avx2()) tables.push_back(&kAvx2Table);
#endif
#ifdef __aarch64__
  if (has_dot_product()) tables.push_back(&kNeonTable);
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

const FormInfo& form_info(Form form) { return kFormInfos[static_cast<int>(form)]; }

Form form_named(const std::string& name) {
  for (int i = 0; i < static_cast<int>(Form::count); ++i)
    if (name == kFormInfos[i].name) return static_cast<Form>(i);
  std::string known;
  for (const auto& form : kFormInfos) known += (known.empty() ? "" : ", ") + std::string(form.name);
  throw std::invalid_argument("Expected one of the packed forms " + known + ", found \"" + name + "\".");
}

const char* type_name(Type type) { return type == Type::i8 ? "i8" : type == Type::bf16 ? "bf16" : "f32"; }

Type type_named(const std::string& name) {
  for (const Type type : {Type::i8, Type::bf16, Type::f32})
    if (name == type_name(type)) return type;
  throw std::invalid_argument("Expected one of the element types i8, bf16, f32, found \"" + name + "\".");
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
