// The kernels of one instruction set, and the choice among the sets.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/product_table.h"
#include "ops/table.h"

namespace openwork {

struct KernelTable : ProductTable, OperatorTable {};

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
