// The kernels of one instruction set, and the choice among the sets.
#pragma once

#include <string>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/peak_args.h"
#include "ops/arguments.h"

namespace openwork {

inline constexpr int kTypes = 3;
inline constexpr int kForms = static_cast<int>(Form::count);

struct KernelTable {
  const char* isa;
  int activation_offset;  // what the INT8 products subtract from each activation
  int group_strips[kForms];
  GemmKernel gemm[kTypes][kForms];  // null: not on this instruction set
#define OPENWORK_OP(op, Arguments) void (*op)(const Arguments&, int64_t begin, int64_t end);
#include "kernels/table.inc"
#undef OPENWORK_OP

  GemmKernel kernel(Type type, Form form) const { return gemm[static_cast<int>(type)][static_cast<int>(form)]; }
  int64_t group_channels(Form form) const { return int64_t{group_strips[static_cast<int>(form)]} * kStripLanes; }
};

struct FormInfo {
  const char* name;
  Body body;
  int reach;  // activation bytes of a window
  int share;  // windows: strips that one shuffle feeds; 0: no shuffle, dense. Blocks: channels of a block row
  int bits;   // of a stored index

  bool shuffled() const { return body == Body::windows && share > 0; }
};
const FormInfo& form_info(Form form);
// Throws std::invalid_argument for a name that is not in the table.
Form form_named(const std::string& name);

const char* type_name(Type type);
Type type_named(const std::string& name);

// Every instruction set that this build holds and this CPU runs, best first; `scalar` is always the last.
const std::vector<const KernelTable*>& available_tables();
// `isa` by name; empty for the environment's OPENWORK_ISA, or the best where that is not set. Throws std::invalid_argument
// with the names that would do where the set is unknown or this CPU lacks it.
const KernelTable& choose_table(const std::string& isa = "");

}  // namespace openwork
