// The kernels of a matrix unit from a vocabulary V that has tile registers. Included only by the instruction sets' own translation
// units.
#pragma once

#include "kernels/make_products.h"
#include "kernels/overlay.h"
#include "kernels/tiles/peak.h"

namespace openwork {

template <class V, Type type, Form form>
constexpr GemmKernel tile_kernel() {
  if constexpr (form_info(form).body == Body::tiles)
    return kernel_or_null<tiles::Kernels<V, type, form>>();
  else
    return nullptr;
}

template <class V>
constexpr KernelOverlay make_tiles() {
  return KernelOverlay{
      {{
#define OPENWORK_GEMM(form, body, reach, share, bits) tile_kernel<V, Type::i8, Form::form>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
       },
       {
#define OPENWORK_GEMM(form, body, reach, share, bits) tile_kernel<V, Type::bf16, Form::form>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
       },
       {}},
      tiles::peak<V>};
}

}  // namespace openwork
