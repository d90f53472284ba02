// The table of one instruction set from its vocabulary V. Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/gemm_body.h"
#include "kernels/table.h"
#include "ops/operators.h"

namespace openwork {

template <class V, Form form>
constexpr GemmKernel gemm_or_null() {
  if constexpr (form == Form::window64 && !V::kHasShuffle64)
    return nullptr;
  else
    return gemm<V, form>;
}

template <class V>
constexpr KernelTable make_table() {
  return KernelTable{
      V::kName,
      V::kStrips,
      V::kMaxRows,
      V::kActivationOffset,
      {
#define OPENWORK_GEMM(form, window, shuffled) gemm_or_null<V, Form::form>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
      },
#define OPENWORK_OP(op, Arguments) ops::op<V>,
#include "kernels/table.inc"
#undef OPENWORK_OP
  };
}

}  // namespace openwork
