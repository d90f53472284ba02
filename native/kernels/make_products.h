// The products of one instruction set from its vocabulary V. Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/product_table.h"

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
constexpr ProductTable make_products() {
  return ProductTable{
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
  };
}

}  // namespace openwork
