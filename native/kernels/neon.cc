#include "simd/neon.h"

#include "kernels/make_table.h"

namespace openwork {

extern const KernelTable kNeonTable = make_table<Neon>();

}  // namespace openwork
