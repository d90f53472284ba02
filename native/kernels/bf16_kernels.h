// The products of BF16 alone, for CPUs that have an instruction for them beside an instruction set of the table.
#pragma once

#include "kernels/table.h"

namespace openwork {

struct Bf16Kernels {
  GemmKernel gemm[kForms];
  void (*peak)(const PeakArgs&, int64_t begin, int64_t end);
};

}  // namespace openwork
