// How often a thread has asked for memory.
#pragma once

#include <cstdint>

namespace openwork::test {

// Calls of operator new on this thread since it began.
int64_t allocations();

}  // namespace openwork::test
