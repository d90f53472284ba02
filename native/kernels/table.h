// The kernels of one instruction set, and the choice among the sets.
#pragma once

#include <string>
#include <vector>

#include "kernels/gemm.h"
#include "ops/arguments.h"

namespace openwork {

struct KernelTable {
  const char* isa;
  int strips;             // of 16 output channels that a tile makes at once: packing follows it
  int max_rows;           // of the largest dense tile
  int activation_offset;  // what the products subtract from each activation
  GemmKernel gemm[static_cast<int>(Form::count)];  // null: not on this instruction set
#define OPENWORK_OP(op, Arguments) void (*op)(const Arguments&, int64_t begin, int64_t end);
#include "kernels/table.inc"
#undef OPENWORK_OP
};

struct FormInfo {
  const char* name;
  int window;     // activation bytes
  bool shuffled;  // weights carry indices
};
const FormInfo& form_info(Form form);
// Throws std::invalid_argument for a name that is not in the table.
Form form_named(const std::string& name);

// Every instruction set that this build holds and this CPU runs, best first; `scalar` is always the last.
const std::vector<const KernelTable*>& available_tables();
// `isa` by name; empty for the environment's OPENWORK_ISA, or the best where that is not set. Throws std::invalid_argument
// with the names that would do where the set is unknown or this CPU lacks it.
const KernelTable& choose_table(const std::string& isa = "");

}  // namespace openwork
