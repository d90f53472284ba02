#include "simd/avxvnni.h"

#include "ops/make_operators.h"

namespace openwork {

extern const OperatorTable kAvxVnniOperators = make_operators<AvxVnni>();

}  // namespace openwork
