#include "simd/avx2.h"

#include "ops/make_operators.h"

namespace openwork {

extern const OperatorTable kAvx2Operators = make_operators<Avx2>();

}  // namespace openwork
