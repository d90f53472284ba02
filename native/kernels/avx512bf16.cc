#include "simd/avx512bf16.h"

#include "kernels/make_products.h"
#include "kernels/overlay.h"
#include "kernels/peak.h"

namespace openwork {

extern const KernelOverlay kAvx512Bf16Overlay = {
    {{},
     {
#define OPENWORK_GEMM(form, body, reach, share, bits) kernel_or_null<body::Kernels<Avx512Bf16, Type::bf16, Form::form>>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
     },
     {}},
    ops::peak<Avx512Bf16>};

}  // namespace openwork
