#include "simd/neon.h"

#include "ops/make_operators.h"

namespace openwork {

extern const OperatorTable kNeonOperators = make_operators<Neon>();

}  // namespace openwork
