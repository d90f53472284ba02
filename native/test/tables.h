// Which kernels of this machine's tables are to be tested.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/table.h"

namespace openwork::test {

// Those whose kernels no other table has: an emulated unit's are another's, but for its tiles.
inline std::vector<const KernelTable*> own_tables() {
  std::vector<const KernelTable*> tables = available_tables();
  std::erase_if(tables, [](const KernelTable* table) { return table->emulated; });
  return tables;
}

// Whether the table's kernel of a form is its own.
inline bool is_own(const KernelTable& table, Form form) { return !table.emulated || form_info(form).body == Body::tiles; }

}  // namespace openwork::test
