// The table of one instruction set from its vocabulary V. Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/peak.h"
#include "kernels/table.h"
#include "ops/operators.h"

#define OPENWORK_BODY_KERNELS
#include "kernels/bodies.inc"

namespace openwork {

template <class Kernels>
constexpr GemmKernel kernel_or_null() {
  if constexpr (Kernels::kExists)
    return Kernels::kernel();
  else
    return nullptr;
}

template <class V>
constexpr KernelTable make_table() {
  return KernelTable{
      V::kName,
      false,
      V::kActivationOffset,
      {
#define OPENWORK_GEMM(form, body, reach, share, bits) body::Kernels<V, Type::i8, Form::form>::kGroupStrips,
#include "kernels/table.inc"
#undef OPENWORK_GEMM
      },
      {{
#define OPENWORK_GEMM(form, body, reach, share, bits) kernel_or_null<body::Kernels<V, Type::i8, Form::form>>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
       },
       {
#define OPENWORK_GEMM(form, body, reach, share, bits) kernel_or_null<body::Kernels<V, Type::bf16, Form::form>>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
       },
       {
#define OPENWORK_GEMM(form, body, reach, share, bits) kernel_or_null<body::Kernels<V, Type::f32, Form::form>>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
       }},
#define OPENWORK_OP(op, Arguments) ops::op<V>,
#include "kernels/table.inc"
#undef OPENWORK_OP
  };
}

}  // namespace openwork
