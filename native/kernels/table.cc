#include "kernels/table.h"

#include <cstdlib>
#include <stdexcept>

#include "kernels/bf16_kernels.h"

#ifdef __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace openwork {

#define OPENWORK_ISA(name, Symbol, runs) extern const KernelTable k##Symbol##Table;
#include "kernels/isas.inc"
#undef OPENWORK_ISA
extern const Bf16Kernels kAvx512Bf16Kernels;

namespace {

#ifdef __x86_64__
[[maybe_unused]] bool has_avx512vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
[[maybe_unused]] bool has_vbmi() { return __builtin_cpu_supports("avx512vbmi"); }
[[maybe_unused]] bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
[[maybe_unused]] bool has_avxvnni() { return __builtin_cpu_supports("avxvnni"); }
#endif
#ifdef __aarch64__
[[maybe_unused]] bool has_dot_product() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#endif

#if defined(__x86_64__) && !defined(OPENWORK_SCALAR_ALONE)
// For CPUs that have products of BF16 of their own.
const KernelTable& avx512vnni_with_bf16() {
  static const KernelTable own = [] {
    KernelTable copy = kAvx512VnniTable;
    for (int form = 0; form < kForms; ++form) copy.gemm[static_cast<int>(Type::bf16)][form] = kAvx512Bf16Kernels.gemm[form];
    copy.peak = [](const PeakArgs& a, int64_t begin, int64_t end) {
      (a.type == Type::bf16 ? kAvx512Bf16Kernels.peak : kAvx512VnniTable.peak)(a, begin, end);
    };
    return copy;
  }();
  return own;
}
#endif

std::vector<const KernelTable*> find_tables() {
  std::vector<const KernelTable*> tables;
#define OPENWORK_ISA(name, Symbol, runs) \
  if (runs) tables.push_back(&k##Symbol##Table);
#include "kernels/isas.inc"
#undef OPENWORK_ISA
#if defined(__x86_64__) && !defined(OPENWORK_SCALAR_ALONE)
  if (tables.front() == &kAvx512VnniTable && __builtin_cpu_supports("avx512bf16")) tables.front() = &avx512vnni_with_bf16();
#endif
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
#define OPENWORK_BODY(body, rows) #body,
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
