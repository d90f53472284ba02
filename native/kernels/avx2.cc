#include "simd/avx2.h"

#include "kernels/make_table.h"

namespace openwork {

extern const KernelTable kAvx2Table = make_table<Avx2>();

}  // namespace openwork
