#include "simd/avxvnni.h"

#include "kernels/make_table.h"

namespace openwork {

extern const KernelTable kAvxVnniTable = make_table<AvxVnni>();

}  // namespace openwork
