#include "simd/avx512vnni.h"

#include "ops/make_operators.h"

namespace openwork {

extern const OperatorTable kAvx512VnniOperators = make_operators<Avx512Vnni>();

}  // namespace openwork
