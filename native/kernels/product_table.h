// The products of one instruction set.
#pragma once

#include "kernels/gemm.h"

namespace openwork {

inline constexpr int kTypes = 3;

struct ProductTable {
  const char* isa;
  bool emulated;          // runs only where it is asked for by name
  int activation_offset;  // what the INT8 products subtract from each activation
  int group_strips[kForms];
  GemmKernel gemm[kTypes][kForms];  // null: not on this instruction set

  GemmKernel kernel(Type type, Form form) const { return gemm[static_cast<int>(type)][static_cast<int>(form)]; }
  int64_t group_channels(Form form) const { return int64_t{group_strips[static_cast<int>(form)]} * kStripLanes; }
};

}  // namespace openwork
