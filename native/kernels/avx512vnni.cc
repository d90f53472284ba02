#include "simd/avx512vnni.h"

#include "kernels/make_table.h"

namespace openwork {

extern const KernelTable kAvx512VnniTable = make_table<Avx512Vnni>();

}  // namespace openwork
