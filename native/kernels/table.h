// The kernels of one instruction set, and the choice among the sets.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/peak_args.h"
#include "ops/arguments.h"
#include "ops/image_arguments.h"

namespace openwork {

inline constexpr int kTypes = 3;

struct KernelTable {
  const char* isa;
  bool emulated;          // runs only where it is asked for by name
  int activation_offset;  // what the INT8 products subtract from each activation
  int group_strips[kForms];
  GemmKernel gemm[kTypes][kForms];  // null: not on this instruction set
#define OPENWORK_OP(op, Arguments) void (*op)(const Arguments&, int64_t begin, int64_t end);
#include "kernels/table.inc"
#undef OPENWORK_OP

  GemmKernel kernel(Type type, Form form) const { return gemm[static_cast<int>(type)][static_cast<int>(form)]; }
  int64_t group_channels(Form form) const { return int64_t{group_strips[static_cast<int>(form)]} * kStripLanes; }
};

// Throws std::invalid_argument for a name that is not in the table.
Form form_named(const std::string& name);
// Of this name, or none.
std::optional<Form> find_form(const std::string& name);

const char* body_name(Body body);
const char* type_name(Type type);
Type type_named(const std::string& name);

// An instruction set that this build holds.
struct InstructionSet {
  std::string name;
  bool emulated;
  const KernelTable* table;  // null where this CPU does not run it
  std::string lacks;         // what it lacks then: the end of a sentence that begins "This machine has no"
};

// All of them, best first; `scalar` is always the last.
const std::vector<InstructionSet>& instruction_sets();
// Of those that this CPU runs.
const std::vector<const KernelTable*>& available_tables();
// `isa` by name; empty for the environment's OPENWORK_ISA, or the best that is not emulated where that is not set. Throws
// std::invalid_argument with the names that would do where the set is unknown or this CPU lacks it.
const KernelTable& choose_table(const std::string& isa = "");

}  // namespace openwork
