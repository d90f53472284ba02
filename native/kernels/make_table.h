// The table of one instruction set from its vocabulary V. Included only by the instruction sets' own translation units.
#pragma once

#include "kernels/blocks_body.h"
#include "kernels/depthwise_body.h"
#include "kernels/gemm_body.h"
#include "kernels/peak.h"
#include "kernels/table.h"
#include "ops/operators.h"

namespace openwork {

template <class V, Type type, Form form>
constexpr GemmKernel gemm_or_null() {
  constexpr FormShape shape = form_shape(form);
  if constexpr (!has_kernel<V, type, form>())
    return nullptr;
  else if constexpr (shape.body == Body::blocks)
    return Blocks<V, type, shape.share>::run;
  else if constexpr (shape.body == Body::depthwise)
    return Depthwise<V, type>::run;
  else
    return Gemm<V, type, form>::run;
}

template <class V>
constexpr KernelTable make_table() {
  return KernelTable{
      V::kName,
      V::kActivationOffset,
      {
#define OPENWORK_GEMM(form, body, reach, share, bits) Tiling<V, Form::form>::kStrips,
#include "kernels/table.inc"
#undef OPENWORK_GEMM
      },
      {{
#define OPENWORK_GEMM(form, body, reach, share, bits) gemm_or_null<V, Type::i8, Form::form>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
       },
       {
#define OPENWORK_GEMM(form, body, reach, share, bits) gemm_or_null<V, Type::bf16, Form::form>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
       },
       {
#define OPENWORK_GEMM(form, body, reach, share, bits) gemm_or_null<V, Type::f32, Form::form>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
       }},
#define OPENWORK_OP(op, Arguments) ops::op<V>,
#include "kernels/table.inc"
#undef OPENWORK_OP
  };
}

}  // namespace openwork
