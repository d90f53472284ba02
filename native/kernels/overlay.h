// Kernels that a CPU has beside an instruction set of the table: products of BF16 of its own, or a matrix unit.
#pragma once

#include "kernels/peak_args.h"
#include "kernels/product_table.h"

namespace openwork {

struct KernelOverlay {
  GemmKernel gemm[kTypes][kForms];  // null: as it was
  void (*peak)(const PeakArgs&, int64_t begin, int64_t end);
};

}  // namespace openwork
