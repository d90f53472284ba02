#include "simd/scalar.h"

#include "ops/make_operators.h"

namespace openwork {

extern const OperatorTable kScalarOperators = make_operators<Scalar>();

}  // namespace openwork
