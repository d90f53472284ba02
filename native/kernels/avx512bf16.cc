#include "simd/avx512bf16.h"

#include "kernels/bf16_kernels.h"
#include "kernels/make_table.h"

namespace openwork {

extern const Bf16Kernels kAvx512Bf16Kernels = {
    {
#define OPENWORK_GEMM(form, body, reach, share, bits) kernel_or_null<body::Kernels<Avx512Bf16, Type::bf16, Form::form>>(),
#include "kernels/table.inc"
#undef OPENWORK_GEMM
    },
    [](const PeakArgs& a, int64_t begin, int64_t end) { ops::peak_of<Avx512Bf16, Type::bf16>(a, end - begin); }};

}  // namespace openwork
