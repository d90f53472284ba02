#include "simd/avx512vnni_novbmi.h"

#include "kernels/make_table.h"

namespace openwork {

extern const KernelTable kAvx512VnniNoVbmiTable = make_table<Avx512VnniNoVbmi>();

}  // namespace openwork
