// What the timing cache is keyed by.
#pragma once

#include <string>

namespace openwork {

// The processor's own name, as CPUID gives it; "unknown" where there is none.
std::string cpu_name();
// Changes with every source of the kernels.
std::string kernel_version();

}  // namespace openwork
