// How often a thread has asked for memory.
#pragma once

#include <cstdint>

namespace openwork::test {

// Sanitizers have operators of their own, whose checks would be lost: there nothing is counted.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kAllocationsAreCounted = false;
#else
#define OPENWORK_COUNT_ALLOCATIONS
inline constexpr bool kAllocationsAreCounted = true;
#endif

// Calls of operator new on this thread since it began.
int64_t allocations();

}  // namespace openwork::test
