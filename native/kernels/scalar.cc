#include "simd/scalar.h"

#include "kernels/make_table.h"

namespace openwork {

extern const KernelTable kScalarTable = make_table<Scalar>();

}  // namespace openwork
